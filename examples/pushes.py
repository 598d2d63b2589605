"""Pushes of an object, for logs and goals of environments that observe where hand and object are.

    collect.py task=gym:gymnasium_robotics:FetchPush-v4 policy=examples/pushes.py:fetch ...
    evaluate.py "goal={later: {policy: examples/pushes.py:fetch, steps: 10, ...}}" ...

No reward and no goal of the environment enters: directions and lengths are random. docs/environments.md has the commands.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Pushes:
    """Goes behind the object, lowers the hand, pushes through, and begins again from another side.

    Args:
        hand: Indices of the hand's position in the observation.
        thing: Indices of the object's position.
        low_m: Corner of the rectangle `(x, y)` that pushes end in, m.
        high_m: Its opposite corner.
        unit_m: Length in the observation that is one metre.
        full_m: Way of the hand during one action of size 1, m.
        rest: The other numbers of an action.
        above_m: Height over the object's middle at which the hand travels, m; it pushes 1 cm above the middle.
        noise: Standard deviation added to every number of an action.
    """

    def __init__(
        self,
        *,
        hand: slice,
        thing: slice,
        low_m: tuple[float, float],
        high_m: tuple[float, float],
        unit_m: float = 1.0,
        full_m: float = 0.1,
        rest: int = 1,
        above_m: float = 0.09,
        noise: float = 0.2,
    ) -> None:
        self.hand, self.thing, self.unit_m, self.full_m, self.rest = hand, thing, unit_m, full_m, rest
        self.low_m, self.high_m = np.array(low_m), np.array(high_m)
        self.above_m, self.noise = above_m, noise

    def start(self, observation: Array, generator: np.random.Generator) -> None:
        """Begin an episode."""
        self._begin(observation, generator)

    def __call__(self, observation: Array, generator: np.random.Generator) -> Array:
        """The next action `(3 + rest,)`, between -1 and 1."""
        hand = observation[self.hand] / self.unit_m
        if np.linalg.norm(self.ways[0] - hand) < 0.03 or self.patience == 0:
            self.ways, self.patience = self.ways[1:], 4
            if not self.ways:
                self._begin(observation, generator)
        self.patience -= 1
        way = np.append((self.ways[0] - hand) / self.full_m, np.ones(self.rest))
        return np.clip(way + self.noise * generator.standard_normal(len(way)), -1.0, 1.0)

    def _begin(self, observation: Array, generator: np.random.Generator) -> None:
        """Choose a direction and a length; the object may be missed by 1.5 cm."""
        thing = observation[self.thing] / self.unit_m
        end = generator.uniform(self.low_m, self.high_m)
        along = np.append(end - thing[:2], 0.0)
        along /= np.linalg.norm(along)
        middle = thing + np.append(0.015 * generator.standard_normal(2), 0.01)
        behind, beyond = middle - 0.08 * along, middle + generator.uniform(0.0, 0.12) * along
        self.ways, self.patience = [behind + [0.0, 0.0, self.above_m - 0.01], behind, beyond], 4


def fetch(env: Any) -> Pushes:
    """For FetchPush of gymnasium-robotics."""
    return Pushes(hand=slice(6, 9), thing=slice(0, 3), low_m=(1.15, 0.5), high_m=(1.45, 1.0))


def cube(env: Any) -> Pushes:
    """For OGBench's cube-single: positions are relative to the table's middle and ten times larger."""
    return Pushes(hand=slice(12, 15), thing=slice(19, 22), low_m=(-0.1, -0.2), high_m=(0.1, 0.2), unit_m=10.0, rest=2)
