"""Estimates the goal position: the world model's reading of the images, corrected by hand keypoints.

With an out-of-range camera, a displacement head can read the same position from two images, and the arm stops far from
the goal.  The known motion of the hand corrects this.  Each sensor - the hand keypoint of every camera, and the head's
position - is calibrated against that motion (`world_model.perception.calibration`).  The goal minimises the weighted
disagreement of all sensors:

    x* = argmin sum over sensors of |u* - u - A (x - x_mean)|^2 / v

u* is the sensor's value for the goal image.  v holds its noise, the uncertainty of A and Student-t tails for outliers:
if the head's output does not change while the hand moves, A is degenerate and the head gets zero weight.  Images may be
one step late: of the two pairings, with the current and the previous position, the one with the higher marginal
likelihood is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.encoders.hand_points import Sighting
from jepa_mpc.world_model.perception.calibration import Belief, Rigs, SenseSettings, calibrate, camera_rigs, head_rigs

ROUNDS = 8
SIDES = {"left": 1, "right": -1}
REACH_M = 0.3
"""Standard deviation of the prior on the distance to the goal."""


@dataclass(frozen=True, kw_only=True)
class GoalEstimatorSettings:
    """Prior assumptions of the goal estimator.

    Args:
        cameras: Of keypoints in images.
        head: Of the positions read by the world model.
        delays: Possible image delays in steps.
    """

    cameras: SenseSettings = field(default_factory=lambda: SenseSettings(sd=0.02, doubt=0.05, looseness=0.25))
    head: SenseSettings = field(default_factory=lambda: SenseSettings(sd=0.05, looseness=0.6))
    delays: Sequence[int] = (0, 1)


class Sense:
    """One sensor's readings of the hand and of the goal.

    Args:
        rigs: Candidate poses.
        settings: Prior assumptions.
    """

    def __init__(self, rigs: Rigs, settings: SenseSettings) -> None:
        self.rigs, self.settings = rigs, settings
        self._seen: list[Tensor] = []
        self._variances: list[Tensor] = []
        self._goals: list[Tensor] = []
        self._goal_variances: list[Tensor] = []

    def take(self, seen: Tensor, goal: Tensor, *, scatter: Tensor, goal_scatter: Tensor) -> None:
        """Store a step's readings `(R,)` of the hand and of the goal, and the squared spread of both."""
        self._seen.append(seen)
        self._goals.append(goal)
        self._variances.append(self.settings.sd**2 + self.settings.doubt * scatter)
        self._goal_variances.append(self.settings.sd**2 + self.settings.doubt * goal_scatter)

    def belief(self, places: Annotated[Tensor, "T 3"]) -> Belief:
        """The posterior of the sensor after all steps so far."""
        return calibrate(
            torch.stack(self._seen), torch.stack(self._variances), places, rigs=self.rigs, settings=self.settings
        )

    def goal(self) -> tuple[Annotated[Tensor, "R"], Tensor]:
        """The goal's reading and its variance. Errors are correlated over steps, so more steps do not reduce it."""
        variances = torch.stack(self._goal_variances)
        share = 1 / variances
        share = share / share.sum()
        return share @ torch.stack(self._goals), share @ variances


class GoalEstimator:
    """Accumulates one episode and estimates the displacement to the goal. One world at a time.

    Args:
        cameras: Names of the cameras. "left" and "right" give the side of the robot; for others the side is unknown,
            and more steps are needed to estimate it.
        settings: Prior assumptions.
    """

    def __init__(self, *, cameras: Sequence[str], settings: GoalEstimatorSettings | None = None) -> None:
        self.settings = settings or GoalEstimatorSettings()
        self.cameras = [Sense(camera_rigs(SIDES.get(name)), self.settings.cameras) for name in cameras]
        self.head = Sense(head_rigs(), self.settings.head)
        self.places: list[Tensor] = []

    @torch.no_grad()
    def __call__(
        self,
        seen: Sighting,
        goal: Sighting,
        *,
        place_m: Annotated[Tensor, "3"],
        read_m: Annotated[Tensor, "3"],
        goal_read_m: Annotated[Tensor, "3"],
    ) -> Annotated[Tensor, "3"]:
        """Process a step; returns the displacement to the goal (m, base frame).

        Args:
            seen: Keypoints of the hand in the current image, one world `(1, V, 2)`.
            goal: Keypoints in the goal image.
            place_m: Hand position from commands or proprioception (any origin).
            read_m: Hand position read by the world model (any origin).
            goal_read_m: Goal position read by the world model (the same origin).

        Raises:
            ValueError: If the number of points is not that of the cameras.
        """
        if not seen.at.shape == goal.at.shape == (1, len(self.cameras), 2):
            raise ValueError(
                f"expected one world and {len(self.cameras)} cameras, got points {tuple(seen.at.shape)} now and "
                f"{tuple(goal.at.shape)} in the goal image"
            )
        nothing = torch.zeros(())
        for i, camera in enumerate(self.cameras):
            camera.take(seen.at[0, i], goal.at[0, i], scatter=seen.spread[0, i], goal_scatter=goal.spread[0, i])
        self.head.take(read_m, goal_read_m, scatter=nothing, goal_scatter=nothing)
        self.places.append(place_m)
        return self._agreed([*self.cameras, self.head]) - place_m

    def _agreed(self, senses: Sequence[Sense]) -> Annotated[Tensor, "3"]:
        """The goal position, by iteratively reweighted least squares."""
        beliefs = max((self._beliefs(senses, delay) for delay in self.settings.delays), key=_evidence)
        goals = [sense.goal() for sense in senses]
        here = self.places[-1]
        vague = torch.eye(3) / REACH_M**2
        place = here
        for round_ in range(ROUNDS):
            system, wanted = vague, vague @ here
            for sense, belief, (goal, sure) in zip(senses, beliefs, goals, strict=True):
                offset = place - belief.centre_m
                doubt = torch.einsum("i,rij,j->r", offset, belief.covariance, offset)
                variance = sure * belief.misfit + belief.variance + doubt
                gap = goal - belief.reading
                missed = (gap - belief.map @ offset).square().sum() / variance.mean()
                weight = 1 / (variance * (1 + missed / sense.settings.tails if round_ else 1))
                system = system + (belief.map.T * weight) @ belief.map
                wanted = wanted + (belief.map.T * weight) @ (gap + belief.map @ belief.centre_m)
            place = torch.linalg.solve(system, wanted)
        return place

    def _beliefs(self, senses: Sequence[Sense], delay: int) -> list[Belief]:
        """The posteriors of all sensors for an image delay of this many steps."""
        late = (torch.arange(len(self.places)) - delay).clamp_min(0)
        places = torch.stack(self.places)[late]
        return [sense.belief(places) for sense in senses]


def _evidence(beliefs: Sequence[Belief]) -> float:
    return float(sum(belief.log_evidence for belief in beliefs))
