"""What one step of a gymnasium environment gave, what counts as success in it, and what is known of some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jepa_mpc.envs.plant import Array


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where an episode stands.

    Args:
        observation: The environment's observation as one row `(n,)`.
        reward: Of the last step, summed over repeats.
        total: Sum of all rewards of the episode.
        ended: Whether the environment ended the episode by itself.
        steps: Steps so far.
        info: The last step's info.
    """

    observation: Array
    reward: float = 0.0
    total: float = 0.0
    ended: bool = False
    steps: int = 0
    info: Mapping[str, Any] = field(default_factory=dict)


Success = Callable[[Moment], bool]


@dataclass(frozen=True, kw_only=True)
class GymGoal:
    """What is wanted in an environment.

    Args:
        observation: Observation at the goal, None on axes that do not matter; None overall to plan for reward alone.
        success: What counts as reached; by default `info["is_success"]` or `info["success"]`, where they exist.
        horizon: Steps that a plan should look ahead.
        repeat: The environment's own steps per action.
        describe: The task in a sentence.
    """

    observation: Sequence[float | None] | None = None
    success: Success | None = None
    horizon: int = 20
    repeat: int = 1
    describe: str = ""


def near(goal: Sequence[float | None], tolerance: float) -> Success:
    """Whether no axis of the observation that matters is further than `tolerance` from its value at the goal."""
    axes = [axis for axis, value in enumerate(goal) if value is not None]
    wanted = np.array([value for value in goal if value is not None])
    return lambda moment: bool(np.all(np.abs(moment.observation[axes] - wanted) <= tolerance))


def told(moment: Moment) -> bool:
    """What the environment itself says of success.

    Raises:
        ValueError: If it says nothing.
    """
    for name in ("is_success", "success"):
        if name in moment.info:
            return bool(moment.info[name])
    if moment.steps == 0:
        return False
    raise ValueError(
        "this environment does not say what success is: give GymEnv a goal with success=, e.g. "
        "GymGoal(success=lambda moment: moment.total > 300)"
    )


def upright(moment: Moment) -> bool:
    """Pendulum: within 18 degrees of upright and slower than 1 rad/s."""
    cosine, _, speed = moment.observation
    return bool(cosine > 0.95 and abs(speed) < 1.0)


GOALS: Mapping[str, GymGoal] = {
    "Pendulum-v1": GymGoal(
        success=upright,
        horizon=25,
        describe="Swing the pendulum up and hold it within 18 degrees of upright, slower than 1 rad/s.",
    ),
    "MountainCarContinuous-v0": GymGoal(
        success=lambda moment: moment.ended,
        horizon=15,
        repeat=10,
        describe="Drive out of the valley; reached where the environment ends the episode.",
    ),
    "InvertedPendulum-v5": GymGoal(
        observation=(0.0, 0.0, 0.0, 0.0),
        success=lambda moment: not moment.ended,
        horizon=15,
        describe="Hold the pole upright until the end; the environment ends an episode in which it falls.",
    ),
    "Reacher-v5": GymGoal(
        observation=(None, None, None, None, None, None, None, None, 0.0, 0.0),
        success=lambda moment: bool(np.linalg.norm(moment.observation[-2:]) < 0.02),
        horizon=10,
        describe="Bring the fingertip to the target; reached within 2 cm.",
    ),
}
"""Environments of gymnasium that need no goal from the user."""
