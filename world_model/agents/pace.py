"""Types of real-time control: moments, commands, timing, and the beat of a control loop."""

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
ROUNDING = 1e-6  # tolerance of the beat, as a share of a period


class Drive(Enum):
    """The command type of one period."""

    FOLLOW = "follow"  # follow the plan
    HOLD = "hold"  # hold still until a new plan arrives
    STOP = "stop"  # hold still until `reset`


@dataclass(frozen=True, kw_only=True)
class Moment:
    """An observation, its time, and the action sent after it.

    Args:
        observation: The observation.
        stamp_s: Its time, by the executor's clock.
        action: The action sent `B A`; None for the newest moment.
    """

    observation: Observation
    stamp_s: float
    action: Action | None = None


@dataclass(frozen=True, kw_only=True)
class Command:
    """The command for the robot in this period.

    Args:
        action: `B A`, physical units, inside the box.
        drive: Whether it follows a plan.
        age_s: Age of the observation behind the plan; infinite without a plan.
        step: Index of the plan's step, or None.
        reason: Why no plan is followed; empty otherwise.
    """

    action: Action
    drive: Drive
    age_s: float
    step: int | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Control rates, and limits on the age of the information behind an action.

    Args:
        period_s: Duration of each action of a plan.
        max_age_s: Maximum age of the observation behind an action; older plans and observations are discarded.
        stop_after_s: Time without a plan after which the robot stops until `reset`.
        replan_s: Minimum time between the observations of two searches; 0 replans as often as possible.

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
    """One period of the control loop: its index, and its delay."""

    index: int
    late_s: float


def beats(
    count: int,
    *,
    period_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Beat]:
    """Yield `count` beats, one per period from now on; a late one comes immediately and does not shift later ones."""
    start_s = clock()
    for index in range(count):
        wait_s = start_s + index * period_s - clock()
        if wait_s > 0:
            sleep(wait_s)
        yield Beat(index=index, late_s=max(0.0, clock() - start_s - index * period_s))
