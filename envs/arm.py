"""An arm under Cartesian commands: each control step ramps the joint targets over a fixed number of physics steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from jepa_mpc.envs.breakdown import broken, unfit, warnings
from jepa_mpc.envs.control import InverseKinematics, rotation_matrix, rotation_vector
from jepa_mpc.envs.labs import WORKSPACE_HIGH, WORKSPACE_LOW
from jepa_mpc.envs.robots import HOME
from jepa_mpc.envs.scene import Scene

SUBSTEPS = 60
RAMP_SUBSTEPS = 36
DT_S = 0.24
HAND_DOWN = np.diag([1.0, -1.0, -1.0])
CLEARANCE_M = 0.05
DEEPEST_OVERLAP_M = 0.02
RAMP_SHARE = np.minimum(1.0, np.arange(1, SUBSTEPS + 1) / RAMP_SUBSTEPS)


@dataclass(frozen=True)
class ArmCommand:
    """The last command of the servos.

    Args:
        joints: Joint targets `(joints,)` in rad.
        rotation: Orientation `(3, 3)` of the hand in the base frame.
        opening_m: Finger opening (each side), in metres.
    """

    joints: np.ndarray
    rotation: np.ndarray
    opening_m: float

    def row(self) -> np.ndarray:
        """All entries in one row, in the order of `Robot.told`."""
        return np.concatenate([self.joints, self.rotation.ravel(), [self.opening_m]])


class Arm:
    """The robot in a scene.

    Args:
        scene: The scene, which defines the robot.
        heights_m: Minimum and maximum height of the hand above the table, or None for those of the workspace.

    Attributes:
        command: The last command of the servos.
        watchers: Called with the data after every physics step (such as a microphone).
    """

    def __init__(self, scene: Scene, *, heights_m: tuple[float, float] | None = None) -> None:
        self.scene, self.robot = scene, scene.robot
        self.heights_m = heights_m
        self.watchers: list[Callable[[mujoco.MjData], None]] = []
        self.home = self.robot.home(scene.model)
        self.kinematics = InverseKinematics(self.robot, scene.model)
        self.command = ArmCommand(self.home, HAND_DOWN, self.robot.home_opening_m(scene.model))

    @property
    def joints(self) -> np.ndarray:
        """Measured arm joints `(joints,)` in rad."""
        return np.array(self.scene.data.qpos[self.robot.arm])

    def workspace(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners of the box that bounds the hand in the base frame (by default from 5 cm above the table)."""
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
        return float(self.scene.data.qpos[self.robot.grip][0])

    def place(self, position: np.ndarray, rotation: np.ndarray = HAND_DOWN) -> float:
        """Set the hand to a pose without simulating; returns the remaining position error (m)."""
        joints, error = self.kinematics.solve(self.home, position, rotation)
        joints, error = self.kinematics.solve(joints, position, rotation)
        model, data = self.scene.model, self.scene.data
        mujoco.mj_resetDataKeyframe(model, data, model.key(HOME).id)
        data.qpos[self.robot.arm] = joints
        self.command = ArmCommand(joints, rotation, self.robot.home_opening_m(model))
        data.ctrl[:] = self.controls(self.command)
        mujoco.mj_forward(model, data)
        return error

    def next_command(self, action: np.ndarray, joints: np.ndarray, command: ArmCommand) -> ArmCommand:
        """The next servo command for an action `(7,)`, given measured joints and the previous command."""
        position, _ = self.kinematics.pose(joints)
        low, high = self.workspace()
        rotation = rotation_matrix(action[3:6]) @ command.rotation
        target, _ = self.kinematics.solve(joints, np.clip(position + action[:3], low, high), rotation)
        widest = self.robot.largest_opening_m
        opening = np.clip(command.opening_m - action[6] * widest, 0.0, widest)
        return ArmCommand(target, rotation, float(opening))

    def controls(self, command: ArmCommand) -> np.ndarray:
        """The actuator targets `(actuators,)` of a command."""
        return self.robot.targets(command.joints, np.array([command.opening_m]))

    def ramp(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Actuator targets `(SUBSTEPS, actuators)` from one command to the next."""
        return start + RAMP_SHARE[:, None] * (end - start)

    def move(self, action: np.ndarray) -> str | None:
        """Simulate one control step.

        Args:
            action: `(7,)` command in metres, radians and gripper share.

        Returns:
            None, or the reason for a divergence.
        """
        model, data = self.scene.model, self.scene.data
        reason = unfit(action, data, DEEPEST_OVERLAP_M)
        if reason is not None:
            return reason
        before, due_s = warnings(data), data.time + SUBSTEPS * model.opt.timestep
        command = self.next_command(action, self.joints, self.command)
        for controls in self.ramp(self.controls(self.command), self.controls(command)):
            data.ctrl[:] = controls
            mujoco.mj_step(model, data)
            for watch in self.watchers:
                watch(data)
        self.command = command
        self.scene.drift(data.time)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        return broken(data, before, due_s)

    def proprio(self) -> np.ndarray:
        """Proprioception, in the order of `Robot.felt`."""
        position, rotation = self.hand_pose()
        turned = rotation_vector(rotation @ HAND_DOWN.T)
        return np.concatenate([self.joints, [self.opening_m()], position, turned]).astype(np.float32)
