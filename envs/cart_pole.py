"""Cart-pole: swing up a hanging pole by pushing the cart, and keep it upright."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch

from jepa_mpc.envs.baselines import Policy
from jepa_mpc.envs.costs import squares, task_cost, tilt, weighted
from jepa_mpc.envs.direct import DirectEnv
from jepa_mpc.envs.plant import Array, DirectPlant
from jepa_mpc.envs.swing import SwingUp
from jepa_mpc.envs.tracing import Tracked
from jepa_mpc.interfaces import Cost
from jepa_mpc.types import ActionBox

MODEL = Path(__file__).parent / "assets" / "cart_pole.xml"
SUBSTEPS = 4
LARGEST_FORCE_N = 15.0
START_NOISE = 0.05
UPRIGHT_COSINE, SLOW_RAD_S, NEAR_M = 0.95, 1.0, 0.5
SENSORS = ("cart position [m]", "pole angle [rad]", "cart speed [m/s]", "pole speed [rad/s]")


def swing_cost() -> Cost:
    """Tilt of the pole, cart position and speeds: mean over the plan, plus the last step."""
    return task_cost(weighted((1.0, tilt(1)), (1.0, squares([(0, 0.1), (2, 0.01), (3, 0.01)]))), at_end=1.0)


def read_joints(physics: Array, sensordata: Array) -> Array:
    """Positions and velocities, without the time."""
    return physics[..., 1:]


def stands(sensors: Array) -> bool:
    """Whether the pole is nearly upright and slow, and the cart near the middle."""
    cart_m, angle_rad, _, speed_rad_s = sensors
    return bool(np.cos(angle_rad) > UPRIGHT_COSINE and abs(speed_rad_s) < SLOW_RAD_S and abs(cart_m) < NEAR_M)


class CartPoleEnv(DirectEnv):
    """A cart pushed with up to 15 N for 0.04 s at a time; the pole starts hanging and should stand.

    The action is a share of that force, -1 to 1.

    Args:
        cameras: "side", or none.
        image_size: Width and height of the images in pixels.
        budget: Control steps per episode.
        render_mode: None or "rgb_array".
    """

    horizon = 25
    tracked = Tracked(kind="geom", name="pole", far_end=True)
    describe = "Swing the pole up and hold it: within 18 degrees of upright, slower than 1 rad/s, near the middle."

    def __init__(
        self,
        *,
        cameras: tuple[str, ...] = ("side",),
        image_size: int = 64,
        budget: int = 120,
        render_mode: str | None = None,
    ) -> None:
        most = torch.ones(1)
        plant = DirectPlant(
            mujoco.MjModel.from_xml_path(str(MODEL)),
            box=ActionBox(low=-most, high=most),
            substeps=SUBSTEPS,
            sensors=SENSORS,
            reading=read_joints,
        )
        super().__init__(
            plant, cameras=cameras, view="side", image_size=image_size, budget=budget, render_mode=render_mode
        )

    def goal_sensors(self) -> Array:
        """Upright and at rest in the middle."""
        return np.zeros(len(SENSORS))

    def distance_of(self, sensors: Array) -> float:
        """1 - cos(angle) + |cart position| / 2."""
        return float(1.0 - np.cos(sensors[1]) + 0.5 * abs(sensors[0]))

    def success(self) -> bool:
        """Whether the pole stands."""
        return not self._broken and stands(self.plant_sensors())

    def cost(self) -> Cost:
        """See `swing_cost`."""
        return swing_cost()

    def oracle(self) -> Policy:
        """Pumps energy, then balances."""
        return SwingUp(self, cart_kg=1.0, pole_kg=0.2, half_length_m=0.5, newton_per_action=LARGEST_FORCE_N)

    def _start(self, options: dict[str, Any]) -> tuple[Array, Array]:
        noise = self.np_random.uniform(-START_NOISE, START_NOISE, 4)
        return np.array([0.0, np.pi]) + noise[:2], noise[2:]

    def _goal_positions(self) -> Array:
        return np.zeros(2)
