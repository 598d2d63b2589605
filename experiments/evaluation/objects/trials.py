"""The evaluations with trained predictors: counterfactuals, pushes, and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from torch import nn

from jepa_mpc.costs import PlanCost, last
from jepa_mpc.encoders.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, NormalisePixels
from jepa_mpc.experiments.evaluation.objects.counterfactuals import ask_model, ask_simulator, compare
from jepa_mpc.experiments.evaluation.objects.object_figures import draw_pushes
from jepa_mpc.experiments.evaluation.objects.puck_pushing import (
    CAMERAS,
    Mind,
    PlacesPerception,
    Played,
    Push,
    PushSearch,
    play,
)
from jepa_mpc.experiments.evaluation.objects.puck_recording import Episodes
from jepa_mpc.experiments.evaluation.objects.slot_logs import Readout, SlotLog, TrueSlots
from jepa_mpc.experiments.evaluation.objects.slot_predictors import SlotWindows
from jepa_mpc.experiments.evaluation.objects.vector_baseline import WIDTH
from jepa_mpc.reporting.intervals import wilson
from jepa_mpc.world_model.costs.goal import GoalDistance
from jepa_mpc.world_model.dynamics.objects import AlignedDynamics, MatchedGap
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from jepa_mpc.world_model.parts.predictors.object_world import ObjectWorld
from jepa_mpc.world_model.perception.images import ImagePerception
from jepa_mpc.world_model.recipes import leworldmodel

SCORES = ("future_mm", "future_last_mm", "untouched_mm", "unseen_mm", "edges_auroc")
IDLE = "standing still"
FEW = 5
PAPER_PATCHES = (196, 384)
"""Tokens of an image of 196 px and their width, the reference of the paper."""


@dataclass(frozen=True, kw_only=True)
class TrialSource:
    """Slots of one kind.

    Args:
        encoder: The encoder of the slots.
        train: Logs to train on, by number of pucks.
        held: Held-out logs, likewise.
        readout: The readout of positions.
    """

    encoder: nn.Module
    train: Mapping[int, SlotLog]
    held: Mapping[int, SlotLog]
    readout: Readout


def ask(
    worlds: Mapping[tuple[str, int], ObjectWorld],
    source: TrialSource,
    episodes: Episodes,
    windows: SlotWindows,
    *,
    most: int,
) -> list[dict[str, Any]]:
    """Counterfactual rows of every mask and seed, all on the same cases."""
    assert isinstance(source.encoder, TrueSlots)
    cases = ask_simulator(episodes, windows, most=most)
    rows = []
    for (mask, seed), world in worlds.items():
        answers = ask_model(world, windows, cases, source.readout, source.encoder)
        rows += [
            {"mask": mask, "seed": seed, "question": question, **scores}
            for question, scores in compare(windows, cases, answers).items()
        ]
    return rows


def mind_of(source: TrialSource, world: ObjectWorld, episodes: Episodes, tasks: Sequence[Push], size: int) -> Mind:
    """An agent's slot world: from simulator state, for the episodes of these tasks, or learned from images."""
    dynamics, cost = AlignedDynamics(world), PlanCost(GoalDistance(distance=MatchedGap()), last)
    if isinstance(source.encoder, TrueSlots):
        present = episodes.present[[task.episode for task in tasks]]
        bodies = torch.nonzero(present)[:, 1].view(len(tasks), -1)
        return Mind(perception=PlacesPerception(source.encoder, bodies), dynamics=dynamics, cost=cost)
    prepare = NormalisePixels(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    seen = ImagePerception(source.encoder, cameras=CAMERAS, image_size=(size, size), prepare=prepare)
    return Mind(perception=seen, dynamics=dynamics, cost=cost)


def mind_of_pixels(objective: DynamicsObjective, size: int) -> Mind:
    """An agent's world model with one vector per image."""
    return Mind(
        perception=ImagePerception(
            objective.encoder, cameras=CAMERAS, image_size=(size, size), prepare=objective.preprocess
        ),
        dynamics=leworldmodel.as_world_model(objective),
        cost=PlanCost(GoalDistance(), last),
    )


def push_all(
    minds: Mapping[str, Mind | None],
    episodes: Episodes,
    tasks: list[Push],
    search: PushSearch,
    *,
    history: int,
    reached_m: float,
    out: Path,
) -> dict[str, dict[str, Any]]:
    """Every agent on the same tasks, with a contact sheet of each."""
    goals = np.stack([episodes.frames[task.episode, task.goal].numpy() for task in tasks])
    size, rows = goals.shape[-1], {}
    for name, mind in minds.items():
        played = play(mind, episodes, tasks, search, history=history, size=size, title=name)
        draw_pushes(played.finals, goals, played.gaps_m, reached_m=reached_m, path=out / f"pushes_{slug(name)}.png")
        rows[name] = _row(played, reached_m)
    return rows


def _row(played: Played, reached_m: float) -> dict[str, Any]:
    reached = played.gaps_m <= reached_m
    return {
        "pushes": len(reached),
        "reached": int(reached.sum()),
        "wilson_95": list(wilson(int(reached.sum()), len(reached))),
        "median_mm": float(1000 * np.median(played.gaps_m)),
        "mean_mm": float(1000 * played.gaps_m.mean()),
        "plan_s": played.plan_s,
        "gaps_mm": [round(1000 * float(gap), 2) for gap in played.gaps_m],
    }


def latent_sizes(slots: int, width: int) -> dict[str, float]:
    """Size of one state: nodes of a slot world (slots, action), LeWorldModel's vector, and the paper's patches."""
    patches = PAPER_PATCHES[0] * PAPER_PATCHES[1]
    nodes = (slots + 1) * width
    return {"nodes": nodes, "leworldmodel": WIDTH, "paper_patches": patches, "share_of_patches": nodes / patches}


def slug(name: str) -> str:
    """A file name from a name."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over the seeds, for every source, mask and number of pucks."""
    groups: dict[tuple[str, str, int], list[Mapping[str, float]]] = {}
    for row in rows:
        groups.setdefault((row["source"], row["mask"], row["pucks"]), []).append(row["scores"])
    return [
        {
            "source": source,
            "mask": mask,
            "pucks": pucks,
            "seeds": len(some),
            **{key: mean(scores[key] for scores in some) for key in some[0]},
            **{f"{key}_std": stdev(scores[key] for scores in some) if len(some) > 1 else 0.0 for key in some[0]},
        }
        for (source, mask, pucks), some in groups.items()
    ]


def markdown(result: Mapping[str, Any]) -> str:
    """All tables as Markdown."""
    lines = ["| slots | adjusted Rand index, bodies alone | with the table |", "|---|---|---|"]
    for count, row in result["slots"]["agreement"].items():
        lines.append(f"| {count} pucks | {row['ari_foreground']:.3f} | {row['ari_all']:.3f} |")
    lines += ["", f"Places read from them: {result['slots']['read_error_mm']:.0f} mm off."]
    lines += ["", "| slots | hidden in training | pucks | after a meeting | last step | untouched | not seen | edges |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in result["summary"]:
        digits = {key: 2 if key == "edges_auroc" else 1 for key in SCORES}
        cells = [f"{row[key]:.{digits[key]}f} ± {row[f'{key}_std']:.{digits[key]}f}" for key in SCORES]
        lines.append(f"| {row['source']} | {row['mask']} | {row['pucks']} | {' | '.join(cells)} |")
    head = "| hidden | question | others untouched | said of them | others touched | truth | said | gap | AUROC |"
    lines += ["", head, "|" + "---|" * 9]
    for (mask, question), some in _grouped(result["questions"]).items():
        lines.append(f"| {mask} | {question} | {' | '.join(_asked(some))} |")
    lines += ["", "| pushes | reached | 95 % | median end | one plan |", "|---|---|---|---|---|"]
    for name, row in result["pushes"].items():
        low, high = row["wilson_95"]
        share = f"{row['reached']} of {row['pushes']} | {low:.0%} - {high:.0%}"
        lines.append(f"| {name} | {share} | {row['median_mm']:.0f} mm | {row['plan_s']:.2f} s |")
    return "\n".join(lines) + "\n"


def _asked(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Numbers of bodies, and means over the seeds; groups smaller than `FEW` stay empty."""
    stay, change = int(rows[0]["stay"]), int(rows[0]["change"])
    told = [f"{mean(row[key] for row in rows):.1f} mm" for key in ("change_true_mm", "change_said_mm", "change_gap_mm")]
    told.append(f"{mean(row['auroc'] for row in rows):.2f}")
    said = f"{mean(row['stay_said_mm'] for row in rows):.1f} mm"
    return [str(stay), said, str(change), *(told if change >= FEW else ["-"] * 4)]


def _grouped(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["mask"], row["question"]), []).append(row)
    return groups
