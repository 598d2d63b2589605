"""Training of chunk policies on a log whose images are encoded once by a frozen encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from tqdm import tqdm

from jepa_mpc.checkpoint import checkpoint_hash
from jepa_mpc.face.training.encoded_log import encoded_once, spread
from jepa_mpc.face.training.pretrained import begin_with_encoder
from jepa_mpc.interfaces import Batch
from jepa_mpc.reporting.intervals import cluster_bootstrap
from jepa_mpc.seeding import generator, numpy_generator
from jepa_mpc.trajectories.actions import ACTION_NAMES
from jepa_mpc.trajectories.bank import FrameBank
from jepa_mpc.types import Loss
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.checkpoints.loader import save_world_model
from jepa_mpc.world_model.dynamics.model import Interface
from jepa_mpc.world_model.parts.objectives.chunk import ChunkObjective
from jepa_mpc.world_model.training.loop import Callbacks, FitSettings, fit

ASKED = 3  # steps of the second evaluation, beside a whole chunk
MOVED = 3  # first axes of an action: metres


@dataclass(frozen=True, kw_only=True)
class ChunkLesson:
    """Encoded training and validation logs.

    Args:
        train: The training log; tokens `N D` of each step replace the frames, as `G N D 1`.
        held: The same for labs that are not in `train`.
        image_size: Side of the images.
        said: Description of the data.
    """

    train: FrameBank
    held: FrameBank
    image_size: int
    said: str


class OnTokens(nn.Module):
    """Applies a chunk objective to batches of encoded images.

    Args:
        objective: The objective.
    """

    def __init__(self, objective: ChunkObjective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of windows whose frames are tokens `B T N D 1`."""
        networks = self.objective
        horizon = 1 if networks.latents is None else networks.latents.horizon
        lesson = networks.lessons(batch, generator, chunk=networks.decoder.chunk, horizon=horizon)
        return networks.loss(lesson, lesson.frames[..., 0])

    def after_step(self, progress: float) -> None:
        """Update the target."""
        self.objective.after_step(progress)


class ChunkJudge:
    """Displacement error of predicted chunks on held-out labs.

        error = |sum_t a_hat_t - sum_t a_t|         over the k steps that led to the goal

    Args:
        held: The log.
        window: Observations of a window.
        count: Windows.
    """

    def __init__(self, held: FrameBank, *, window: int, count: int) -> None:
        self.windows = held.sample(count, window, generator=generator(0, "judge"))
        self.labs = held.groups[self.windows["episode"]].tolist()

    def __call__(self, step: int, objective: nn.Module) -> dict[str, float]:
        """Mean errors in centimetres, under `held/`."""
        assert isinstance(objective, OnTokens)
        asked = (ASKED, self.windows["actions"].shape[1])
        return {f"held/end_cm_in_{steps}": float(self.errors(objective.objective, steps).mean()) for steps in asked}

    @torch.no_grad()
    def errors(self, objective: ChunkObjective, steps: int) -> Tensor:
        """Error of each window `G` (cm) when asked to reach the final frame in this many steps."""
        tokens, states = self.windows["frames"][..., 0], self.windows["proprio"]
        told = torch.full((len(tokens),), steps)
        made = objective.chunk(told, states[:, 0], torch.stack([tokens[:, 0], tokens[:, steps]], dim=1))
        missed = (made - self.windows["actions"])[:, :steps, :MOVED].sum(dim=1)
        return 100 * missed.norm(dim=-1)

    def interval(self, errors: Tensor) -> list[float]:
        """95 % interval of the mean error, by bootstrap over labs."""
        return list(cluster_bootstrap(errors.numpy(), self.labs, generator=numpy_generator(0, "bootstrap")))


def chunk_objective(system: Mapping[str, Any], *, seed: int, encoder: str) -> ChunkObjective:
    """The objective with fresh weights around the frozen encoder of another checkpoint.

    Raises:
        ValueError: If the system is not a chunk objective.
        BadCheckpoint: If that encoder does not fit it.
    """
    objective = assemble(system, generator=generator(seed, "weights"))
    if not isinstance(objective, ChunkObjective):
        raise ValueError(f"expected a system that predicts action chunks, got {type(objective).__name__}")
    begin_with_encoder(objective, encoder)
    objective.encoder.requires_grad_(False)
    return objective


def encoded_lesson(
    objective: ChunkObjective, bank: FrameBank, *, episodes: int, held: int, encoder: str, keep: Path
) -> ChunkLesson:
    """Encode this many episodes of a log, spread evenly over its labs, once; cached in a folder."""
    train, rest = bank.split(0.1, generator=generator(0, "validation labs"))
    facts = {"encoder": checkpoint_hash(encoder), "log": list(bank.frames.shape)}
    return ChunkLesson(
        train=_encoded(objective, train, episodes, keep=keep / f"train_{episodes}", facts=facts),
        held=_encoded(objective, rest, held, keep=keep / f"held_{held}", facts=facts),
        image_size=bank.frames.shape[-1],
        said=f"{episodes} episodes, one in each of as many labs while there are as many",
    )


def train_chunks(
    objective: ChunkObjective,
    lesson: ChunkLesson,
    settings: FitSettings,
    *,
    seed: int,
    batch: int,
    judge: ChunkJudge,
    title: str,
) -> dict[str, Any]:
    """Train; returns the final error and interval by number of steps (cm)."""
    window = objective.decoder.chunk + 1
    with tqdm(total=settings.steps, unit="step", desc=title) as bar:
        callbacks = Callbacks(evaluate=judge, tick=lambda step: bar.update())
        fit(
            OnTokens(objective),
            lambda stream: lesson.train.sample(batch, window, generator=stream),
            settings=settings,
            seed=seed,
            callbacks=callbacks,
        )
    objective.eval()
    scores: dict[str, Any] = {}
    for steps in (ASKED, objective.decoder.chunk):
        errors = judge.errors(objective, steps)
        scores[f"end_cm_in_{steps}"] = float(errors.mean())
        scores[f"end_cm_in_{steps}_95"] = judge.interval(errors)
    return scores


def save_chunks(
    folder: Path,
    objective: ChunkObjective,
    lesson: ChunkLesson,
    *,
    system: Mapping[str, Any],
    training: Mapping[str, Any],
) -> None:
    """Save the trained networks in the format of `train.py`."""
    interface = Interface(
        cameras=lesson.train.cameras,
        image_size=lesson.image_size,
        actions=ACTION_NAMES,
        dt_s=lesson.train.dt_s,
        log=lesson.said,
    )
    save_world_model(folder, objective, system=system, interface=interface, training=training)


def _encoded(
    objective: ChunkObjective, bank: FrameBank, episodes: int, *, keep: Path, facts: Mapping[str, Any]
) -> FrameBank:
    chosen = spread(bank, episodes)
    rows = chosen.rows

    @torch.no_grad()
    def encode(some: Tensor) -> Tensor:
        return objective.encode(bank.frames[some][:, None])[:, 0]

    tokens = encoded_once("tokens", rows, encode, keep=keep, facts={**facts, "spans": chosen.spans.tolist()})
    return replace(
        bank,
        frames=tokens[..., None],  # (G, N, D, 1)
        actions=bank.actions[rows],
        proprio=bank.proprio[rows],
        offsets=chosen.offsets,
        groups=bank.groups[chosen.episodes],
        episodes=torch.arange(len(chosen.episodes)),
    )
