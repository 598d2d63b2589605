"""Two controls without object prediction: a servo, and dynamics in which only the hand moves."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc.envs.physical_table import OPEN_M
from jepa_mpc.envs.plant import Array, Plant
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import ActionBox, Context, Plans, Rollout

GAIN = 0.6  # share of the remaining distance in one step
GRIP = "grip [m]"


class Shown(Protocol):
    """The sensors, now and at the goal."""

    @property
    def plant(self) -> Plant:
        """Names of the sensors."""

    @property
    def action_box(self) -> ActionBox:
        """Bounds of one action."""

    def plant_sensors(self) -> Array:
        """The plant's current sensors `(Q,)`."""

    def goal_sensors(self) -> Array:
        """The plant's sensors at the goal `(Q,)`."""


class Servo:
    """Proportional control of hand and grip towards their values in the goal image.

    Args:
        env: Source of the sensors; the first three are the hand position (m).
    """

    def __init__(self, env: Shown) -> None:
        self.env = env

    def wanted_m(self, now: Array, goal: Array) -> Array:
        """Target position of the hand `(3,)`."""
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
    """The servo with the goal position relative to the object, at the object's current position."""

    def wanted_m(self, now: Array, goal: Array) -> Array:
        """The object's current position plus the goal's displacement from object to hand."""
        return now[3:6] + goal[:3] - goal[3:6]


class StillWorld:
    """Dynamics in which hand and grip follow their commands, and all other sensors stay constant.

    Args:
        env: Source of the current sensors.
    """

    def __init__(self, env: Shown) -> None:
        self.env = env

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """Roll out plans `B=1 S H A`; the latents are the current ones."""
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
