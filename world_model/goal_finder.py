"""Where the goal lies: what the world model reads from the pictures, set against where the hand is seen in them.

A displacement head that meets a strange camera can read the same place from two pictures and stand still far from the
goal.  The hand's own way tells: places that the head promised and the cameras' points (`world_model.calibration`) are
both measured against what the hand felt, and the goal is where both agree best:

    x* = argmin (x - g_T)' C^-1 (x - g_T) + sum over cameras of |u* - u - A (x - x_mean)|^2 / v

g_t = x_t + d_t is the goal as the head saw it at step t; C is how far g has wandered since, so a head that contradicts
itself counts little.  v holds the noise of the points, the doubt about A and, for outliers, Student's tails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from core.checkpoint import load_checkpoint, load_strict
from core.errors import BadCheckpoint
from encoders.hand_points import HandPoints, Sighting
from world_model.assembly import assemble
from world_model.calibration import CalibrationSettings, CameraBelief, calibrate
from world_model.objectives.points import HandPointsObjective
from world_model.pretrained import MISFITS

ROUNDS = 8


@dataclass(frozen=True, kw_only=True)
class ReadingSettings:
    """How far the displacement head is trusted.

    Args:
        near_m: Deviation of a single reading close to the goal (m).
        share: And per metre of distance.
        wandering: Weight of how far earlier readings put the goal from where it seems now.
        memory: Weight of a reading against that of the next.
        least_m: Deviation that is never undercut (m).
    """

    near_m: float = 0.05
    share: float = 0.5
    wandering: float = 10.0
    memory: float = 0.97
    least_m: float = 0.01


@dataclass(frozen=True, kw_only=True)
class GoalFinderSettings:
    """Everything that is assumed; see the parts."""

    cameras: CalibrationSettings = field(default_factory=CalibrationSettings)
    reading: ReadingSettings = field(default_factory=ReadingSettings)


class GoalFinder:
    """Remembers one episode and tells how far the goal is. One world at a time.

    Args:
        goal: Where the hand is seen in the goal image, one world `(1, V, 2)`.
        sides: 1 for each camera on the left, -1 for each on the right.
        settings: What is assumed.

    Raises:
        ValueError: If the sides are not those of as many cameras.
    """

    def __init__(self, goal: Sighting, *, sides: Sequence[int], settings: GoalFinderSettings | None = None) -> None:
        if goal.at.shape[:2] != (1, len(sides)):
            raise ValueError(f"expected one world and {len(sides)} cameras, got points {tuple(goal.at.shape)}")
        self.goal, self.sides = goal, tuple(sides)
        self.settings = settings or GoalFinderSettings()
        self.points: list[Tensor] = []
        self.spreads: list[Tensor] = []
        self.places: list[Tensor] = []
        self.goals: list[Tensor] = []

    @torch.no_grad()
    def __call__(
        self, seen: Sighting, *, place_m: Annotated[Tensor, "3"], reading_m: Annotated[Tensor, "3"]
    ) -> Annotated[Tensor, "3"]:
        """Take in a step, answer the displacement to the goal (m, base frame).

        Args:
            seen: Where the hand is seen now, `(1, V, 2)`.
            place_m: Where it is felt (base frame).
            reading_m: Displacement to the goal as the world model reads it.
        """
        self.points.append(seen.at[0])
        self.spreads.append(seen.spread[0])
        self.places.append(place_m)
        self.goals.append(place_m + reading_m)
        variances = torch.stack(self.spreads) * self.settings.cameras.doubt + self.settings.cameras.point_sd**2
        points, places = torch.stack(self.points), torch.stack(self.places)
        cameras = [
            calibrate(points[:, i], variances[:, i], places, side=side, settings=self.settings.cameras)
            for i, side in enumerate(self.sides)
        ]
        return self._agreed(cameras, torch.linalg.inv(self._wandering(reading_m))) - place_m

    def _wandering(self, reading_m: Tensor) -> Annotated[Tensor, "3 3"]:
        """Covariance of the goal as the head sees it now."""
        trust = self.settings.reading
        goals = torch.stack(self.goals)
        moved = goals - goals[-1]
        weights = trust.memory ** torch.arange(len(goals) - 1, -1, -1, dtype=goals.dtype)
        single = (trust.near_m + trust.share * reading_m.norm()) ** 2 * torch.eye(3)
        spread = (trust.wandering * (moved.T * weights) @ moved + single) / weights.sum()
        return spread + trust.least_m**2 * torch.eye(3)

    def _agreed(self, cameras: Sequence[CameraBelief], precision: Tensor) -> Annotated[Tensor, "3"]:
        """The goal's place, by reweighted least squares."""
        known, read = self.settings.cameras, self.goals[-1]
        place = read
        for round_ in range(ROUNDS):
            system, wanted = precision.clone(), precision @ read
            for i, camera in enumerate(cameras):
                sure = known.point_sd**2 + known.doubt * self.goal.spread[0, i] + camera.variance
                offset = place - camera.centre_m
                doubt = torch.einsum("i,rij,j->r", offset, camera.covariance, offset)
                variance = sure * camera.misfit + doubt
                gap = self.goal.at[0, i] - camera.point
                missed = (gap - camera.map @ offset).square().sum() / variance.mean()
                weight = 1 / (variance * (1 + missed / known.tails if round_ else 1))
                system = system + (camera.map.T * weight) @ camera.map
                wanted = wanted + (camera.map.T * weight) @ (gap + camera.map @ camera.centre_m)
            place = torch.linalg.solve(system, wanted)
        return place


def load_hand_points(folder: str | Path, *, device: torch.device | str = "cpu") -> HandPoints:
    """Read what a training of `system=hand_points` left.

    Raises:
        BadCheckpoint: If the folder is missing, damaged, of a newer format, or describes something else.
    """
    tensors, config = load_checkpoint(folder)
    try:
        objective = assemble(config["system"])
    except MISFITS as error:
        raise BadCheckpoint(f"{folder} describes no system of this version: {error}") from error
    if not isinstance(objective, HandPointsObjective):
        raise BadCheckpoint(f"{folder} describes a {type(objective).__name__}, not points of the hand")
    load_strict(objective, tensors, str(folder))
    return objective.encoder.to(device).eval().requires_grad_(False)
