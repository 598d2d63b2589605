"""Predictors over slots with different masks, and their scores: predictions, unseen objects, interaction graphs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.errors import choose
from jepa_mpc.experiments.evaluation.objects.kept_training import fit_shown, trained_once
from jepa_mpc.experiments.evaluation.objects.slot_logs import NOBODY, Readout, SlotLog
from jepa_mpc.interfaces import Batch
from jepa_mpc.seeding import generator
from jepa_mpc.types import Latents, Loss
from jepa_mpc.world_model.dynamics.interventions import edge_recovery, influence
from jepa_mpc.world_model.parts.masks.objects import ObjectMask, TokenMask
from jepa_mpc.world_model.parts.objectives.slots import ObjectObjective
from jepa_mpc.world_model.parts.predictors.object_world import ObjectWorld
from jepa_mpc.world_model.parts.predictors.slots import SlotSizes
from jepa_mpc.world_model.recipes import causal_jepa, video_slots
from jepa_mpc.world_model.training.loop import FitSettings

MASKS: Mapping[str, Callable[..., ObjectMask]] = {
    "objects": ObjectMask,
    "tokens": TokenMask,
    "none": lambda *, frames, objects, hidden, each: ObjectMask(frames=frames, objects=objects, hidden=0, each=each),
}
HAND = 0
MOVED_M = 0.01


class ByNumber(nn.Module):
    """One predictor, with an objective for every number of slots, because masks depend on that number.

    Args:
        sizes: Of the predictor.
        encoder: The encoder of the slots (it is not called here).
        mask: A name of `MASKS`.
        hidden: Number of masked objects.
        numbers: Numbers of slots.
        action_m: Typical size of an action (m).
        stream: Source of randomness for the weights.
    """

    def __init__(
        self,
        sizes: SlotSizes,
        *,
        encoder: nn.Module,
        mask: str,
        hidden: int,
        numbers: tuple[int, ...],
        action_m: float,
        stream: Generator,
    ) -> None:
        super().__init__()
        sampler = choose(MASKS, mask, "mask")
        parts = causal_jepa.CausalJepaSizes(slots=video_slots.PRESETS["lab"], predictor=sizes, hidden=hidden)
        kinds: dict[str, ObjectObjective] = {}
        for number in numbers:
            kinds[str(number)] = causal_jepa.build(
                preset=parts,
                action_dim=2,
                action_scale=[action_m] * 2,
                encoder=copy.deepcopy(encoder),  # type: ignore[arg-type]  # building draws its weights anew
                masks=sampler(frames=sizes.history, objects=number, hidden=hidden, each="sample"),
                generator=None if kinds else stream,
            )
        self.world: ObjectWorld = next(iter(kinds.values())).predictor
        for objective in kinds.values():
            objective.predictor = self.world
        self.kinds = nn.ModuleDict(kinds)

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of a batch of slots."""
        return self.kinds[str(batch["slots"].shape[2])](batch, generator)

    def after_step(self, progress: float) -> None:
        """Has no target network to update."""


@dataclass(frozen=True, kw_only=True)
class PredictorLesson:
    """The settings of the predictor training.

    Args:
        sizes: Of the predictor.
        fit: Of the training.
        batch: Windows per step.
        hidden: Number of masked objects.
        source: Description of the slots, saved with the weights.
    """

    sizes: SlotSizes
    fit: FitSettings
    batch: int
    hidden: int
    source: str


def trained(
    folder: Path, lesson: PredictorLesson, logs: Mapping[int, SlotLog], *, mask: str, seed: int, encoder: nn.Module
) -> tuple[ObjectWorld, float]:
    """The predictor of one mask and seed, and its CPU seconds: loaded if it exists, else trained and saved.

    Raises:
        BadCheckpoint: If the existing one has other settings.
    """
    wanted = {"lesson": str(lesson), "mask": mask, "seed": seed}
    numbers = tuple(sorted({log.slots.shape[2] for log in logs.values()}))
    action_m = float(torch.cat([log.actions.flatten() for log in logs.values()]).square().mean().sqrt())
    objective = ByNumber(
        lesson.sizes,
        encoder=encoder,
        mask=mask,
        hidden=lesson.hidden,
        numbers=numbers,
        action_m=action_m,
        stream=generator(seed, "weights"),
    )
    length = lesson.sizes.history + lesson.sizes.future

    def draw(stream: Generator) -> dict[str, Tensor]:
        log = list(logs.values())[int(torch.randint(len(logs), (), generator=stream))]
        return log.windows(lesson.batch, length, stream)

    def train() -> None:
        fit_shown(objective, draw, lesson.fit, seed=seed, title=f"{lesson.source}, {mask}, seed {seed}")

    return objective.world, trained_once(folder, objective.world, wanted, train)


@dataclass(frozen=True, kw_only=True)
class SlotWindows:
    """Windows of known frames and the frames that follow (G of them).

    Args:
        known: Slots of the history `G T N D`.
        actions: `G T-1+H 2`.
        places_m: `G T+H N 2`.
        met: `G T-1+H N N`.
        bodies: `G N`.
        at: Episode and first frame in the recording, int64 `G 2`.
    """

    known: Latents
    actions: Tensor
    places_m: Tensor
    met: Tensor
    bodies: Tensor
    at: Tensor

    @property
    def pucks(self) -> Tensor:
        """Slots that are pucks `G N`."""
        return self.bodies > HAND


def cut(log: SlotLog, *, history: int, horizon: int, every: int) -> SlotWindows:
    """All windows that begin at every `every`-th frame."""
    total = log.slots.shape[1]
    parts = []
    for begin in range(0, total - history - horizon + 1, every):
        end = begin + history + horizon
        at = torch.stack([log.episodes, torch.full_like(log.episodes, begin)], dim=1)
        parts.append(
            (
                log.slots[:, begin : begin + history],
                log.actions[:, begin : end - 1],
                log.places_m[:, begin:end],
                log.met[:, begin : end - 1],
                log.bodies,
                at,
            )
        )
    known, actions, places, met, bodies, at = (torch.cat(column) for column in zip(*parts, strict=True))
    return SlotWindows(known=known, actions=actions, places_m=places, met=met, bodies=bodies, at=at)


@torch.no_grad()
def future_errors(world: ObjectWorld, windows: SlotWindows, readout: Readout) -> dict[str, float]:
    """Prediction errors of puck positions, from the first step with a contact on, in mm."""
    history = windows.known.shape[1]
    imagined = world.imagine(windows.known, windows.actions)[:, history:, : windows.known.shape[2]]
    truth, last = windows.places_m[:, history:], windows.places_m[:, history - 1 : history]
    met = windows.met[:, history - 1 :].any(dim=3).cumsum(dim=1) > 0  # (G, H, N)
    judged = met & windows.pucks[:, None]
    error, still = (readout(imagined) - truth).norm(dim=-1), (last - truth).norm(dim=-1)
    ends = torch.zeros_like(judged)
    ends[:, -1] = judged[:, -1]
    return {
        "future_mm": _mm(error[judged]),
        "future_last_mm": _mm(error[ends]),
        "still_mm": _mm(still[judged]),
        "still_last_mm": _mm(still[ends]),
        "untouched_mm": _mm(error[~met & windows.pucks[:, None]]),
    }


@torch.no_grad()
def unseen_errors(world: ObjectWorld, windows: SlotWindows, readout: Readout) -> dict[str, float]:
    """Error in mm of a moving puck that is visible only in the first frame."""
    count, times = windows.known.shape[2], windows.known.shape[1]
    nodes = world.nodes(windows.known, windows.actions[:, :times])
    first, now = windows.places_m[:, 0], windows.places_m[:, times]
    moved = ((now - first).norm(dim=-1) > MOVED_M) & windows.pucks
    errors = []
    for slot in range(count):
        rows = torch.nonzero(moved[:, slot]).flatten()
        hidden = torch.zeros(len(rows), times, nodes.shape[2], dtype=torch.bool)
        hidden[:, 1:, slot] = True
        if len(rows):
            answer = world.slots(nodes[rows], hidden)[:, times, slot]
            errors.append((readout(answer) - now[rows, slot]).norm(dim=-1))
    return {"unseen_mm": _mm(torch.cat(errors)), "unseen_still_mm": _mm((now - first).norm(dim=-1)[moved])}


def edges(world: ObjectWorld, windows: SlotWindows) -> float:
    """Area under the ROC curve of influence (by removal) against the contacts in the predicted step.

    Edges towards the hand are excluded, because the hand is position-controlled and does not yield.
    """
    times, count = windows.known.shape[1], windows.known.shape[2]
    nodes = world.nodes(windows.known, windows.actions[:, :times])
    matrix = influence(world.slots, nodes, objects=count)
    truth = windows.met[:, times - 1] & (windows.bodies != HAND)[:, None, :] & (windows.bodies != NOBODY)[:, None, :]
    return float(edge_recovery(matrix, truth))


def judge(world: ObjectWorld, windows: SlotWindows, readout: Readout) -> dict[str, float]:
    """All scores of one predictor."""
    scores: dict[str, Any] = {**future_errors(world, windows, readout), **unseen_errors(world, windows, readout)}
    return {**scores, "edges_auroc": edges(world, windows)}


def _mm(distances_m: Tensor) -> float:
    return float(1000 * distances_m.mean()) if len(distances_m) else float("nan")
