"""Progress display of a training, and its graceful stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm

from jepa_mpc.face.training.journal import Journal
from jepa_mpc.face.training.recorders import SPEED
from jepa_mpc.hangup import leave_terminal, listened_to


class Display:
    """Writes metrics to the journal and shows the most important ones beside the progress bar, with the throughput.

    Args:
        journal: Records the metrics.
        bar: The progress bar; it estimates the remaining time.
        batch: Samples per step.
        clock: Returns the time in seconds.
    """

    SHOWN = ("loss", "held/loss", "probe/hand_median_cm", "reach/median_cm")

    def __init__(
        self, journal: Journal, bar: tqdm[Any], *, batch: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.journal, self.bar, self.batch, self.clock = journal, bar, batch, clock
        self.seen: dict[str, str] = {}
        self.mark: tuple[int, float] | None = None

    def __call__(self, step: int, numbers: Mapping[str, float]) -> None:
        """Record and show the metrics of a step."""
        speed = self._speed(step) if "loss" in numbers else {}
        self.journal(step, {**numbers, **speed})
        self.seen |= {name: f"{numbers[name]:.3g}" for name in self.SHOWN if name in numbers}
        if speed:
            self.seen["samples/s"] = f"{speed[SPEED + 'samples_per_s']:.3g}"
        self.bar.set_postfix(self.seen, refresh=False)

    def _speed(self, step: int) -> dict[str, float]:
        """Samples per second since the last entry, including evaluations and saves."""
        now = self.clock()
        last, self.mark = self.mark, (step, now)
        if last is None or now <= last[1]:
            return {}
        return {f"{SPEED}samples_per_s": (step - last[0]) * self.batch / (now - last[1])}


class Stop:
    """Turns a signal into a request to save and end; only inside a `with` block."""

    def __init__(self) -> None:
        self.asked = False
        self.signals = (signal.SIGINT, signal.SIGTERM, *listened_to())
        self.before: list[Any] = []

    def __call__(self) -> bool:
        """Whether to stop now."""
        return self.asked

    def __enter__(self) -> Stop:
        self.before = [signal.signal(number, self._ask) for number in self.signals]
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in zip(self.signals, self.before, strict=True):
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        if number in listened_to():
            leave_terminal()
        if self.asked:  # a second signal stops at once
            raise KeyboardInterrupt
        self.asked = True
