"""Two controls that imagine nothing of the object: a servo, and a world in which the hand moves and all else stays."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc.envs.physical_table import OPEN_M
from jepa_mpc.envs.plant import Array, Plant
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import ActionBox, Context, Plans, Rollout

GAIN = 0.6  # share of the remaining way in one step
GRIP = "grip [m]"


class Shown(Protocol):
    """What both look at: what the sensors read now and in the goal image."""

    @property
    def plant(self) -> Plant:
        """Names of the sensors."""

    @property
    def action_box(self) -> ActionBox:
        """Bounds of one action."""

    def plant_sensors(self) -> Array:
        """What the plant's sensors read now `(Q,)`."""

    def goal_sensors(self) -> Array:
        """What they read at the goal `(Q,)`."""


class Servo:
    """A proportional step of all that it commands, hand and grip, towards what the goal image shows.

    Args:
        env: Where the sensors are read; the first three are the hand's place (m).
    """

    def __init__(self, env: Shown) -> None:
        self.env = env

    def wanted_m(self, now: Array, goal: Array) -> Array:
        """Where the hand shall be `(3,)`."""
        return goal[:3]

    def act(self, env: object = None) -> NDArray[np.float32]:
        """The action `(7,)`."""
        now, goal = self.env.plant_sensors(), self.env.goal_sensors()
        action = torch.zeros(self.env.action_box.dim)
        action[:3] = torch.from_numpy(GAIN * (self.wanted_m(now, goal) - now[:3]))
        if GRIP in self.env.plant.sensors:
            at = self.env.plant.sensors.index(GRIP)
            action[6] = GAIN * float(now[at] - goal[at]) / OPEN_M
        return self.env.action_box.clip(action).numpy()


class RelativeServo(Servo):
    """The servo that brings the hand to where the goal shows it seen from the object, wherever the object is."""

    def wanted_m(self, now: Array, goal: Array) -> Array:
        """The object's present place, and the goal's way from object to hand."""
        return now[3:6] + goal[:3] - goal[3:6]


class StillWorld:
    """Dynamics in which the hand and the grip go where they are sent, and all other sensors stay as they are.

    Args:
        env: Where the sensors of the present are read.
    """

    def __init__(self, env: Shown) -> None:
        self.env = env

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """Imagine plans `B=1 S H A`; the latents are the present ones."""
        sizes = check_shape(plans, "B S H A", B=1)
        now = torch.from_numpy(self.env.plant_sensors()).to(plans.dtype)
        sensors = now.expand(1, sizes["S"], sizes["H"], -1).clone()
        sensors[..., :3] += plans[..., :3].cumsum(dim=2)
        if GRIP in self.env.plant.sensors:
            at = self.env.plant.sensors.index(GRIP)
            closing = OPEN_M * plans[..., 6].cumsum(dim=2)
            sensors[..., at] = (sensors[..., at] - closing).clamp(0.0, OPEN_M)
        latents = context.latents[:, -1:, None].expand(1, sizes["S"], sizes["H"], *context.latents.shape[2:])
        return Rollout(latents=latents, sensors=sensors)
