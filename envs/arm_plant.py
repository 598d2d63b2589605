"""The arm under Cartesian commands as a plant: what `Arm.move` does to one simulation, done for many rows."""

from __future__ import annotations

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from jepa_mpc.envs.arm import DEEPEST_OVERLAP_M, LARGEST_OPENING_M, RAMP_SHARE, SUBSTEPS, Arm
from jepa_mpc.envs.batched_control import BatchedKinematics
from jepa_mpc.envs.plant import Array
from jepa_mpc.envs.snapshot import COMMAND_DIM
from jepa_mpc.types import ActionBox


class ArmPlant:
    """Joint targets follow from each action and from where the joints are when it begins, so one step is one span.

    Args:
        arm: The robot; its workspace and model are read at each call.
        box: Bounds of one action.
        read_out: Names of the model's own sensors that make up the sensors, in order; each has three numbers (m).
    """

    memory_dim = COMMAND_DIM
    substeps = SUBSTEPS
    span = 1
    deepest_overlap_m = DEEPEST_OVERLAP_M

    def __init__(self, arm: Arm, *, box: ActionBox, read_out: tuple[str, ...]) -> None:
        self.arm = arm
        self.box = box
        self.sensors = tuple(f"{name} {axis} [m]" for name in read_out for axis in "xyz")
        starts = [int(self.model.sensor(name).adr[0]) for name in read_out]
        self._columns = np.concatenate([np.arange(start, start + 3) for start in starts])
        self._kinematics = BatchedKinematics(self.model, arm.home)

    @property
    def model(self) -> mujoco.MjModel:
        """The scene's model."""
        return self.arm.scene.model

    def controls(self, physics: Array, memory: Array, actions: Array) -> tuple[Array, Array]:
        """Ramps `(R, SUBSTEPS, 9)` of one control step, and the commands that end them `(R, 1, 17)`."""
        joints, action = physics[:, 1:8], actions[:, 0]
        low, high = self.arm.workspace()
        position, _ = self._kinematics.pose(joints)
        before = memory[:, 7:16].reshape(-1, 3, 3)
        rotation = Rotation.from_rotvec(action[:, 3:6]).as_matrix() @ before
        target = self._kinematics.solve(joints, np.clip(position + action[:, :3], low, high), rotation)
        opening = np.clip(memory[:, 16:] - action[:, 6:] * LARGEST_OPENING_M, 0.0, LARGEST_OPENING_M)
        start = np.concatenate([memory[:, :7], memory[:, 16:], memory[:, 16:]], axis=1)
        end = np.concatenate([target, opening, opening], axis=1)
        ramp = start[:, None] + RAMP_SHARE[:, None] * (end - start)[:, None]
        after = np.concatenate([target, rotation.reshape(-1, 9), opening], axis=1)
        return ramp, after[:, None]

    def read(self, physics: Array, sensordata: Array) -> Array:
        """The sensors that were named, in metres in the base frame."""
        return sensordata[..., self._columns]
