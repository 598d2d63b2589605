"""Reward-free exploration of environments, given only the bounds of their actions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Actions = NDArray[np.floating]


class HeldActions:
    """Draws an action uniformly and holds it for some steps, which explores farther than independent noise.

    Args:
        low: Lower bound of each axis `(A,)`.
        high: Upper bound.
        longest: Maximum number of steps for which an action is held; drawn uniformly from 1.
    """

    def __init__(self, *, low: Actions, high: Actions, longest: int = 8) -> None:
        self.low, self.high, self.longest = np.asarray(low), np.asarray(high), longest
        self._held, self._left = self.low, 0

    def start(self, proprio: Actions, generator: np.random.Generator) -> None:
        """Begin an episode."""
        self._left = 0

    def __call__(self, proprio: Actions, generator: np.random.Generator) -> Actions:
        """The next action `(A,)`."""
        if self._left == 0:
            self._held = generator.uniform(self.low, self.high).astype(np.float32)
            self._left = int(generator.integers(1, self.longest + 1))
        self._left -= 1
        return self._held


class UniformActions(HeldActions):
    """Draws every action independently from the box.

    Args:
        low: Lower bound of each axis `(A,)`.
        high: Upper bound.
    """

    def __init__(self, *, low: Actions, high: Actions) -> None:
        super().__init__(low=low, high=high, longest=1)
