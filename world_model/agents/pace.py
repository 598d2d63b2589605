"""The words of real time: moments, commands, limits, and the beat that a control loop keeps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from torch import Tensor

from jepa_mpc.types import Observation

Action = Annotated[Tensor, "B A"]
ROUNDING = 1e-6  # share of a period by which a clock may miss the beat


class Drive(Enum):
    """What the robot is told to do in one period."""

    FOLLOW = "follow"  # carry the plan on
    HOLD = "hold"  # stand still until a fresh plan comes
    STOP = "stop"  # stand still until `reset`


@dataclass(frozen=True, kw_only=True)
class Moment:
    """An observation, when it was made, and the action that was sent after it.

    Args:
        observation: What was seen.
        stamp_s: When, by the executor's clock.
        action: What was sent `B A`; None for the newest moment.
    """

    observation: Observation
    stamp_s: float
    action: Action | None = None


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to send to the robot now.

    Args:
        action: `B A`, physical units, inside the box.
        drive: Whether it follows a plan.
        age_s: Time since the observation behind the plan; infinite where no plan is followed.
        step: Which step of the plan this is, or None.
        reason: Why no plan is followed; empty otherwise.
    """

    action: Action
    drive: Drive
    age_s: float
    step: int | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How fast the robot is driven and how old the information behind an action may be.

    Args:
        period_s: Time that each action of a plan is meant for.
        max_age_s: Oldest observation that an action may rest on; older plans and observations are discarded.
        stop_after_s: Time without a plan to follow after which the robot stops until `reset`.
        replan_s: Least time between the observations of two searches; 0 plans as often as the planner can.

    Raises:
        ValueError: If a time is not positive (`replan_s`: negative), or actions would expire within their period.
    """

    period_s: float
    max_age_s: float
    stop_after_s: float = math.inf
    replan_s: float = 0.0

    def __post_init__(self) -> None:
        if not (self.period_s > 0 and self.stop_after_s > 0 and self.replan_s >= 0):
            raise ValueError(
                f"need period_s > 0, stop_after_s > 0 and replan_s >= 0, got {self.period_s}, {self.stop_after_s} and "
                f"{self.replan_s}"
            )
        if not self.max_age_s >= self.period_s:
            raise ValueError(f"max_age_s = {self.max_age_s} is less than one period of {self.period_s} s")


@dataclass(frozen=True, kw_only=True)
class Beat:
    """One period of a metronome: its number, and by how much it begins late."""

    index: int
    late_s: float


def beats(
    count: int,
    *,
    period_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Beat]:
    """Give `count` beats, one per period from now on; one that is late comes at once, and the later ones keep time."""
    start_s = clock()
    for index in range(count):
        wait_s = start_s + index * period_s - clock()
        if wait_s > 0:
            sleep(wait_s)
        yield Beat(index=index, late_s=max(0.0, clock() - start_s - index * period_s))
