"""The arm with a gripper and an object as a plant: the arm's own signals, and sensors of hand, object and grip."""

from __future__ import annotations

import mujoco
import numpy as np

from jepa_mpc.envs.arm import Arm
from jepa_mpc.envs.arm_plant import ArmPlant
from jepa_mpc.envs.physical_table import SENSORS
from jepa_mpc.envs.plant import Array
from jepa_mpc.types import ActionBox

HAND, OBJECT, UP, GRIP = slice(0, 3), slice(3, 6), slice(6, 9), 9
NAMES = (
    *(f"{name} {axis} [m]" for name in ("hand", "object") for axis in "xyz"),
    *(f"object's axis {axis} [1]" for axis in "xyz"),
    "grip [m]",
)


class HandlingPlant:
    """The plant of a pick-and-place task.

    Sensors: hand and object (m) and the object's upright axis, in the base frame, and the grip: the commanded opening
    (m, each finger), which is smaller than the measured one if something is between the fingers.

        grip = opening + force / gain

    Args:
        arm: The robot, in a scene of `physical_table.physical_spec`.
        box: Bounds of one action.
    """

    sensors = NAMES

    def __init__(self, arm: Arm, *, box: ActionBox) -> None:
        self.arm, self.box = arm, box
        self._arm = ArmPlant(arm, box=box, read_out=("ee_in_base",))
        self.memory_dim, self.substeps, self.span = self._arm.memory_dim, self._arm.substeps, self._arm.span
        self.deepest_overlap_m = self._arm.deepest_overlap_m
        at = {name: int(self.model.sensor(name).adr[0]) for name in SENSORS}
        self._vectors = np.concatenate([np.arange(at[name], at[name] + 3) for name in SENSORS[:3]])
        self._gain = float(self.model.actuator(arm.robot.fingers[0]).gainprm[0])  # N per m of opening
        self._opening, self._force = at["opening"], at["finger_force"]

    @property
    def model(self) -> mujoco.MjModel:
        """The scene's model."""
        return self._arm.model

    def controls(self, physics: Array, memory: Array, actions: Array) -> tuple[Array, Array]:
        """Ramps and commands of one control step (see `ArmPlant.controls`)."""
        return self._arm.controls(physics, memory, actions)

    def read(self, physics: Array, sensordata: Array) -> Array:
        """The ten sensors, in the order of `NAMES`."""
        grip = sensordata[..., self._opening] + sensordata[..., self._force] / self._gain
        return np.concatenate([sensordata[..., self._vectors], grip[..., None]], axis=-1)
