"""Learning-rate schedules: share of the peak rate at each step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """A learning-rate schedule."""

    def __call__(self, step: int, steps: int) -> float:
        """Rate of step `step` (counted from 0) of `steps`, as a share of the peak."""


@dataclass(frozen=True)
class WarmupCosine:
    """A linear rise, then half a cosine.

        share = final + (1 - final) (1 + cos(pi x)) / 2,   x from 0 to 1 after the rise

    Args:
        warmup: Share of the steps in which the rate rises.
        final: Final rate, as a share of the peak.
        initial: Initial rate, as a share of the peak.

    Raises:
        ValueError: If a share is out of range.
    """

    warmup: float = 0.01
    final: float = 0.0
    initial: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.warmup < 1 and 0 <= self.final <= 1 and 0 <= self.initial <= 1):
            raise ValueError(
                "need a warmup from 0 up to, but not including, 1 and final and initial from 0 to 1, got "
                f"{self.warmup}, {self.final} and {self.initial}"
            )

    def __call__(self, step: int, steps: int) -> float:
        """Rate of step `step` of `steps`, as a share of the peak."""
        rising = round(self.warmup * steps)
        if step < rising:
            return self.initial + (1 - self.initial) * (step + 1) / rising
        way = (step - rising) / max(steps - rising, 1)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * way))


@dataclass(frozen=True)
class WarmupHoldDecay:
    """A linear rise, a long constant, and a linear fall at the end, as V-JEPA 2 trains (arXiv:2506.09985, 2.4).

    Args:
        warmup: Share of the steps in which the rate rises.
        decay: Share of the steps, at the end, in which it falls.
        initial: Initial rate, as a share of the peak.
        final: Final rate, as a share of the peak.

    Raises:
        ValueError: If a share is out of range.
    """

    warmup: float = 0.05
    decay: float = 0.05
    initial: float = 0.0
    final: float = 0.0

    def __post_init__(self) -> None:
        if not (self.warmup >= 0 and self.decay >= 0 and self.warmup + self.decay <= 1):
            raise ValueError(f"warmup and decay must be shares that fit together, got {self.warmup} and {self.decay}")
        if not (0 <= self.initial <= 1 and 0 <= self.final <= 1):
            raise ValueError(f"initial and final must be shares from 0 to 1, got {self.initial} and {self.final}")

    def __call__(self, step: int, steps: int) -> float:
        """Rate of step `step` of `steps`, as a share of the peak."""
        rising, falling = round(self.warmup * steps), round(self.decay * steps)
        if step < rising:
            return self.initial + (1 - self.initial) * (step + 1) / rising
        left = steps - 1 - step
        if left < falling:
            return self.final + (1 - self.final) * left / falling
        return 1.0


@dataclass(frozen=True)
class CosineRise:
    """Half a cosine from `initial` up to 1, the weight-decay schedule of I-JEPA and V-JEPA.

        share = 1 + (initial - 1) (1 + cos(pi x)) / 2,   x from 0 to 1

    Args:
        initial: Initial share.

    Raises:
        ValueError: If it is out of range.
    """

    initial: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.initial <= 1:
            raise ValueError(f"initial must be a share from 0 to 1, got {self.initial}")

    def __call__(self, step: int, steps: int) -> float:
        """Share of the whole at step `step` of `steps`."""
        return 1 + (self.initial - 1) * 0.5 * (1 + math.cos(math.pi * (step + 1) / steps))


@dataclass(frozen=True)
class Stretched:
    """A schedule made for more steps than are taken, so that it never reaches its end.

    Args:
        schedule: The schedule.
        factor: Ratio of its length to the number of steps (1.25 in V-JEPA).

    Raises:
        ValueError: If the factor is below 1.
    """

    schedule: Schedule
    factor: float

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"factor must be 1 or more, got {self.factor}")

    def __call__(self, step: int, steps: int) -> float:
        """Share at step `step` of `steps`."""
        return self.schedule(step, round(self.factor * steps))
