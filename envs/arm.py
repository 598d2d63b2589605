"""The arm under Cartesian commands: one control step ramps the joint targets over a fixed number of physics steps."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from jepa_mpc.envs.breakdown import broken, unfit, warnings
from jepa_mpc.envs.control import InverseKinematics, rotation_matrix, rotation_vector
from jepa_mpc.envs.labs import WORKSPACE_HIGH, WORKSPACE_LOW
from jepa_mpc.envs.scene import Scene

SUBSTEPS = 60
RAMP_SUBSTEPS = 36
DT_S = 0.24
LARGEST_OPENING_M = 0.04
HAND_DOWN = np.diag([1.0, -1.0, -1.0])
CLEARANCE_M = 0.05
DEEPEST_OVERLAP_M = 0.02
RAMP_SHARE = np.minimum(1.0, np.arange(1, SUBSTEPS + 1) / RAMP_SUBSTEPS)


@dataclass(frozen=True)
class Command:
    """What the servos were last told.

    Args:
        joints: Joint targets `(7,)` in rad.
        rotation: Orientation `(3, 3)` of the hand in the base frame.
        opening_m: Finger opening (each side), in metres.
    """

    joints: np.ndarray
    rotation: np.ndarray
    opening_m: float

    def controls(self) -> np.ndarray:
        """The actuator targets `(9,)`."""
        return np.concatenate([self.joints, [self.opening_m, self.opening_m]])


class Arm:
    """The robot of a scene.

    Args:
        scene: Where it stands.
        heights_m: Lowest and highest place of the hand above the table, or None for the workspace's own.

    Attributes:
        command: What the servos were last told.
    """

    def __init__(self, scene: Scene, *, heights_m: tuple[float, float] | None = None) -> None:
        self.scene = scene
        self.heights_m = heights_m
        self.home = np.array(scene.model.key_qpos[0][:7])
        self.kinematics = InverseKinematics(scene.model, self.home)
        self.command = Command(self.home, HAND_DOWN, float(scene.model.key_qpos[0][7]))

    @property
    def joints(self) -> np.ndarray:
        """Measured arm joints `(7,)` in rad."""
        return np.array(self.scene.data.qpos[:7])

    def workspace(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners of the box, in the base frame, in which the hand is kept (5 cm above the table, if nothing else)."""
        low, high = np.array(WORKSPACE_LOW), np.array(WORKSPACE_HIGH)
        table = self.scene.lab.table_height_m if self.scene.lab else 0.0
        if self.heights_m is not None:
            low[2], high[2] = table + self.heights_m[0], table + self.heights_m[1]
            return low, high
        low[2] = max(low[2], table + CLEARANCE_M)
        return low, high

    def hand_pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Measured position `(3,)` and rotation `(3, 3)` of the hand in the base frame."""
        return self.kinematics.pose(self.joints)

    def opening_m(self) -> float:
        """Measured finger opening (each side), in metres."""
        return float(self.scene.data.qpos[7])

    def place(self, position: np.ndarray, rotation: np.ndarray = HAND_DOWN) -> float:
        """Put the hand at a pose without simulating; returns the position error (m) that the posture leaves."""
        joints, error = self.kinematics.solve(self.home, position, rotation)
        joints, error = self.kinematics.solve(joints, position, rotation)
        opening = float(self.scene.model.key_qpos[0][7])
        data = self.scene.data
        mujoco.mj_resetDataKeyframe(self.scene.model, data, 0)
        data.qpos[:7] = joints
        self.command = Command(joints, rotation, opening)
        data.ctrl[:] = self.command.controls()
        mujoco.mj_forward(self.scene.model, data)
        return error

    def next_command(self, action: np.ndarray, joints: np.ndarray, command: Command) -> Command:
        """What to tell the servos for an action `(7,)`, given measured joints and the command before it."""
        position, _ = self.kinematics.pose(joints)
        low, high = self.workspace()
        rotation = rotation_matrix(action[3:6]) @ command.rotation
        target, _ = self.kinematics.solve(joints, np.clip(position + action[:3], low, high), rotation)
        opening = np.clip(command.opening_m - action[6] * LARGEST_OPENING_M, 0.0, LARGEST_OPENING_M)
        return Command(target, rotation, float(opening))

    def ramp(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Actuator targets `(SUBSTEPS, 9)` that lead from one command to the next."""
        return start + RAMP_SHARE[:, None] * (end - start)

    def move(self, action: np.ndarray) -> str | None:
        """Simulate one control step.

        Args:
            action: `(7,)` command in metres, radians and gripper share.

        Returns:
            None, or what went wrong when the simulation broke down.
        """
        model, data = self.scene.model, self.scene.data
        reason = unfit(action, data, DEEPEST_OVERLAP_M)
        if reason is not None:
            return reason
        before, due_s = warnings(data), data.time + SUBSTEPS * model.opt.timestep
        command = self.next_command(action, self.joints, self.command)
        for controls in self.ramp(self.command.controls(), command.controls()):
            data.ctrl[:] = controls
            mujoco.mj_step(model, data)
        self.command = command
        self.scene.drift(data.time)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        return broken(data, before, due_s)

    def proprio(self) -> np.ndarray:
        """Joints (7, rad), finger opening (m), position (m) and rotation vector (rad) of the hand in the base frame."""
        position, rotation = self.hand_pose()
        turned = rotation_vector(rotation @ HAND_DOWN.T)
        return np.concatenate([self.joints, [self.opening_m()], position, turned]).astype(np.float32)
