"""Picking by rule: what the best hand-written script does that is told where hand, object and goal are."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.things import Thing
from jepa_mpc.types import ActionBox

ABOVE_M = 0.08
NEAR_M, ON_M = 0.012, 0.006
Array = NDArray[np.float64]


class Picking(Protocol):
    """What the policy looks at."""

    goal_m: Array
    thing: Thing

    @property
    def action_box(self) -> ActionBox:
        """Bounds of one action."""

    def hand_m(self) -> Array:
        """Position of the hand in the base frame (m)."""

    def object_m(self) -> Array:
        """Position of the object's middle in the base frame (m)."""


class Picker:
    """Goes above the object, down, closes, up, across, down, opens, and up again.

    Args:
        env: Where hand, object and goal are read from.
    """

    def __init__(self, env: Picking) -> None:
        self.env = env
        self._doing, self._waited = "fetch", 0

    def act(self, env: object = None) -> NDArray[np.float32]:
        """The action `(7,)`."""
        hand, thing = self.env.hand_m(), self.env.object_m()
        offset = np.array([0.0, 0.0, self.env.thing.held_at_m])
        up = np.array([0.0, 0.0, ABOVE_M])
        if self._doing == "fetch":
            target = thing + offset
            if np.linalg.norm((hand - target)[:2]) > NEAR_M and hand[2] < target[2] + 2 * ABOVE_M:
                target = np.array([*target[:2], max(hand[2], target[2] + ABOVE_M)])
            elif np.linalg.norm(hand - target) < ON_M:
                self._doing = "close"
        elif self._doing == "carry":
            target = self.env.goal_m + offset
            if np.linalg.norm((hand - target)[:2]) > NEAR_M:
                target = target + up
            elif hand[2] - target[2] < ON_M:
                self._doing = "open"
        else:
            target = hand
        closing = {"close": 1.0, "open": -1.0}.get(self._doing, 0.0)
        if closing:
            target = hand
            self._waited += 1
            if self._waited == 2:
                self._doing, self._waited = {"close": "carry", "open": "leave"}[self._doing], 0
        elif self._doing == "leave":
            target = hand + up
        return self._towards(target, closing)

    def _towards(self, target: Array, closing: float) -> NDArray[np.float32]:
        """A step towards a place, as long as the box allows along that line."""
        gap, high = target - self.env.hand_m(), self.env.action_box.high.numpy()[:3]
        action = np.zeros(self.env.action_box.dim, dtype=np.float32)
        action[:3] = gap / max(1.0, float(np.max(np.abs(gap) / high)))
        action[6] = closing
        return action
