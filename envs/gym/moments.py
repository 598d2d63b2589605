"""What one step of a gymnasium environment gave, and what counts as success in it."""

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


def near(goal: Sequence[float | None], tolerance: float | Sequence[float]) -> Success:
    """Whether no axis of the observation that matters is further than `tolerance` from its value at the goal.

    Raises:
        ValueError: If there are several tolerances, and not one for each axis that matters.
    """
    axes = [axis for axis, value in enumerate(goal) if value is not None]
    wanted, widths = np.array([goal[axis] for axis in axes], dtype=np.float64), np.atleast_1d(tolerance)
    if len(widths) not in (1, len(axes)):
        raise ValueError(f"tolerance must be one number, or one for each of the {len(axes)} axes, got {len(widths)}")
    return lambda moment: bool(np.all(np.abs(moment.observation[axes] - wanted) <= widths))


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


def ended(moment: Moment) -> bool:
    """Success where the environment ends the episode by itself."""
    return moment.ended
