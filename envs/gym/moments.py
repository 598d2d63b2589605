"""The result of one step of a gymnasium environment, and success criteria."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jepa_mpc.envs.plant import Array


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The current moment of an episode.

    Args:
        observation: The environment's observation as one row `(n,)`.
        reward: Reward of the last step, summed over repeats.
        total: Sum of all rewards of the episode.
        ended: Whether the environment ended the episode.
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


def near(goal: Sequence[float | None], tolerance: float | Sequence[float]) -> Success:
    """Success if no compared axis of the observation differs from the goal by more than `tolerance`.

    Raises:
        ValueError: If there are several tolerances, and not one for each compared axis.
    """
    axes = [axis for axis, value in enumerate(goal) if value is not None]
    wanted, widths = np.array([goal[axis] for axis in axes], dtype=np.float64), np.atleast_1d(tolerance)
    if len(widths) not in (1, len(axes)):
        raise ValueError(f"tolerance must be one number, or one for each of the {len(axes)} axes, got {len(widths)}")
    return lambda moment: bool(np.all(np.abs(moment.observation[axes] - wanted) <= widths))


def told(moment: Moment) -> bool:
    """Success as reported by the environment.

    Raises:
        ValueError: If it reports none.
    """
    for name in ("is_success", "success"):
        if name in moment.info:
            return bool(moment.info[name])
    if moment.steps == 0:
        return False
    raise ValueError(
        "this environment does not define success: pass GymEnv a goal with success=, e.g. "
        "GymGoal(success=lambda moment: moment.total > 300)"
    )


def ended(moment: Moment) -> bool:
    """Success if the environment ends the episode."""
    return moment.ended
