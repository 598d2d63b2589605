"""What counts as the action between two recorded steps: the command that was given, or the motion that was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

import numpy as np

from trajectories.episode import ACTION, EE_POSE, GRIPPER
from trajectories.rotations import rotation_between


class ActionPart(Protocol):
    """Turns the columns of T steps into the T - 1 actions between them."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]

    def __call__(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Columns of T steps in, actions `T-1 A` (float32, physical units) out."""


class CommandedActions:
    """The actions that the robot was asked for; the last of T leads nowhere and is dropped."""

    name: ClassVar[str] = "commanded"
    needs: ClassVar[tuple[str, ...]] = (ACTION,)

    def __call__(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Columns of T steps in, actions `T-1 A` out."""
        return columns[ACTION][:-1].astype(np.float32)


class PoseDelta:
    """The measured motion of the end effector, as in V-JEPA 2-AC (arXiv:2506.09985, section 3.1).

        a_t = (x_{t+1} - x_t,  rotation vector of R_{t+1} R_t^T,  g_{t+1} - g_t)

    Metres, radians and gripper opening; positions and rotations in the base frame.
    """

    name: ClassVar[str] = "pose_delta"
    needs: ClassVar[tuple[str, ...]] = (EE_POSE, GRIPPER)

    def __call__(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Columns of T steps in, actions `T-1 7` out."""
        pose, gripper = columns[EE_POSE].astype(np.float64), columns[GRIPPER].astype(np.float64)
        moved = np.diff(pose[:, :3], axis=0)
        turned = rotation_between(pose[:-1, 3:], pose[1:, 3:])
        return np.concatenate([moved, turned, np.diff(gripper, axis=0)], axis=1).astype(np.float32)


ACTION_PARTS: dict[str, type[PoseDelta] | type[CommandedActions]] = {
    PoseDelta.name: PoseDelta,
    CommandedActions.name: CommandedActions,
}

ACTION_NAMES = ("dx [m]", "dy [m]", "dz [m]", "rx [rad]", "ry [rad]", "rz [rad]", "gripper")
