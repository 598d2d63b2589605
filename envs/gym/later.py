"""Goals without a description: the environment's state some actions later, from the same start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.gym.course import Course
from jepa_mpc.envs.gym.moments import Moment, near
from jepa_mpc.envs.gym.motions import HeldActions
from jepa_mpc.envs.gym.states import Array
from jepa_mpc.seeding import numpy_generator

Picture = NDArray[np.uint8]
ATTEMPTS = 50
"""Attempts to draw actions that lead away from the start."""


@dataclass(frozen=True, kw_only=True)
class Later:
    """The goal is what random actions reach from the same start: an observation, and an image if cameras are named.

    Every environment with reproducible starts has such goals, and each is reachable. If the goal is already reached at
    the start, other actions are drawn.

    Args:
        steps: Actions from the start to the goal.
        axes: Indices of the observation that are compared; None for all.
        tolerance: Maximum difference on each of them, one number or one per axis, in the observation's unit.
        longest: Maximum number of steps for which one random action is held.
        policy: Acts instead of random actions, for goals that they do not reach (an object to be pushed): given
            the gymnasium environment, gives a `trajectories.motion.Motion`.

    Raises:
        ValueError: If a number is out of range.
    """

    steps: int
    tolerance: float | Sequence[float]
    axes: Sequence[int] | None = None
    longest: int = 8
    policy: Callable[[gymnasium.Env[Any, Any]], Any] | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.longest < 1:
            raise ValueError(f"steps and longest must be at least 1, got {self.steps} and {self.longest}")
        if not np.all(np.asarray(self.tolerance, dtype=np.float64) > 0):
            raise ValueError(f"tolerance must be above 0, got {self.tolerance}")

    def motion(self, course: Course) -> Any:
        """What leads to the goal: has `start` and is called, as `HeldActions`."""
        if self.policy is not None:
            return self.policy(course.own)
        low, high = (np.asarray(bound, dtype=np.float64) for bound in (course.space.low, course.space.high))
        return HeldActions(low=low, high=high, longest=self.longest)

    def observation(self, row: Array) -> list[float | None]:
        """A row `(n,)` as a goal: None on ignored axes.

        Raises:
            ValueError: If an axis is out of range.
        """
        counted = range(len(row)) if self.axes is None else self.axes
        if not counted or not 0 <= min(counted) <= max(counted) < len(row):
            raise ValueError(f"axes must name some of the {len(row)} numbers of the observation, got {self.axes}")
        return [float(value) if axis in counted else None for axis, value in enumerate(row)]

    def widths(self, length: int) -> Array:
        """The tolerance of each of `length` entries; infinite on ignored axes."""
        wanted = self.observation(np.zeros(length))
        widths = np.full(length, np.inf)
        widths[[axis for axis, value in enumerate(wanted) if value is not None]] = self.tolerance
        return widths

    def success(self, row: Array) -> Callable[[Moment], bool]:
        """Whether a moment is near a row `(n,)`."""
        return near(self.observation(row), self.tolerance)

    def gap(self, row: Array, observation: Array) -> float:
        """The largest difference of an observation `(n,)` from a row `(n,)`, in tolerances."""
        return float(np.max(np.abs(row - observation) / self.widths(len(row))))


def play_ahead(
    course: Course, later: Later, *, seed: int, options: dict[str, Any], look: Callable[[], Picture]
) -> tuple[Array, Picture]:
    """Play to the goal, observe, and restart: the goal's observation `(n,)` and the result of `look` there.

    Args:
        course: The environment; at the start of the seed's episode afterwards.
        later: The goal specification.
        seed: Seed of the episode.
        options: Options of its reset.
        look: Renders the image.

    Raises:
        ValueError: If the same seed gives different starts, or the actions never leave the start.
    """
    course.begin(seed=seed, options=options)
    start = course.moment
    farthest = 0.0
    for attempt in range(ATTEMPTS):
        stream = numpy_generator(seed, "later", attempt)
        motion = later.motion(course)
        motion.start(start.observation, stream)
        for _ in range(later.steps):
            course.advance(np.asarray(motion(course.moment.observation, stream), dtype=np.float64))
        row, picture = course.moment.observation, look()
        course.begin(seed=seed, options=options)
        if not np.array_equal(course.moment.observation, start.observation, equal_nan=True):
            raise ValueError(
                "the same seed gives different starts in this environment: goals with later= need equal ones"
            )
        if not later.success(row)(start):
            return row, picture
        farthest = max(farthest, later.gap(row, start.observation))
    raise ValueError(
        f"{later.steps} {'random actions' if later.policy is None else 'actions of the policy'} do not lead out of the "
        f"tolerance in {ATTEMPTS} attempts, at most {100 * farthest:.0f} % of it: more steps, a larger repeat, less "
        "tolerance, or a policy that does"
    )
