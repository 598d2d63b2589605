"""An arm under Cartesian commands as a plant: `Arm.move` for many simulations in parallel."""

from __future__ import annotations

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from jepa_mpc.envs.arm import DEEPEST_OVERLAP_M, RAMP_SHARE, SUBSTEPS, Arm
from jepa_mpc.envs.batched_control import BatchedKinematics
from jepa_mpc.envs.plant import TIME_DIM, Array
from jepa_mpc.types import ActionBox


class ArmPlant:
    """Joint targets depend on each action and on the joints at its start, so one control step is one span.

    Args:
        arm: The robot; its workspace and model are read at each call.
        box: Bounds of one action.
        read_out: Names of the model's sensors that form the plant's sensors, in order; three numbers each (m).
    """

    substeps = SUBSTEPS
    span = 1
    deepest_overlap_m = DEEPEST_OVERLAP_M

    def __init__(self, arm: Arm, *, box: ActionBox, read_out: tuple[str, ...]) -> None:
        self.arm = arm
        self.box = box
        self.memory_dim = arm.robot.told.dim
        self.sensors = tuple(f"{name} {axis} [m]" for name in read_out for axis in "xyz")
        starts = [int(self.model.sensor(name).adr[0]) for name in read_out]
        self._columns = np.concatenate([np.arange(start, start + 3) for start in starts])
        self._kinematics = BatchedKinematics(arm.robot, self.model)

    @property
    def model(self) -> mujoco.MjModel:
        """The scene's model."""
        return self.arm.scene.model

    def controls(self, physics: Array, memory: Array, actions: Array) -> tuple[Array, Array]:
        """Ramps `(R, SUBSTEPS, nu)` of one control step, and the commands at their end `(R, 1, memory_dim)`."""
        robot, told = self.arm.robot, self.arm.robot.told
        joints, action = physics[:, TIME_DIM:][:, robot.arm], actions[:, 0]
        low, high = self.arm.workspace()
        position, _ = self._kinematics.pose(joints)
        before = memory[:, told.rotation].reshape(-1, 3, 3)
        rotation = Rotation.from_rotvec(action[:, 3:6]).as_matrix() @ before
        target = self._kinematics.solve(joints, np.clip(position + action[:, :3], low, high), rotation)
        widest = robot.largest_opening_m
        opening = np.clip(memory[:, told.opening] - action[:, 6:] * widest, 0.0, widest)
        start = robot.targets(memory[:, told.joints], memory[:, told.opening])
        end = robot.targets(target, opening)
        ramp = start[:, None] + RAMP_SHARE[:, None] * (end - start)[:, None]
        after = np.concatenate([target, rotation.reshape(-1, 9), opening], axis=1)
        return ramp, after[:, None]

    def read(self, physics: Array, sensordata: Array) -> Array:
        """The named sensors, in metres in the base frame."""
        return sensordata[..., self._columns]
