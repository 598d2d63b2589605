"""Hand poses as seven numbers, motions between them, and conversions of rotations; batched, on device.

    pose     x y z (m), roll pitch yaw (rad), gripper closedness in [0, 1]
    motion   dx dy dz (m), roll pitch yaw (rad) of R_motion = R_next R^T, change of the closedness

Angles are extrinsic x-y-z Euler angles, R = R_z(yaw) R_y(pitch) R_x(roll), all in the robot's base frame.

Reference: Assran et al. 2025, arXiv:2506.09985, section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

Pose = Annotated[Tensor, "... 7"]
POSE_DIM = 7
LARGEST_ANGLE_RAD = 2 * math.pi
LOOSE = 0.05  # tolerance of a measured closedness outside of [0, 1]


def euler_to_matrix(angles: Annotated[Tensor, "... 3"]) -> Annotated[Tensor, "... 3 3"]:
    """Rotation matrices of roll, pitch and yaw (rad)."""
    cos, sin = angles.cos(), angles.sin()
    (cr, cp, cy), (sr, sp, sy) = cos.unbind(-1), sin.unbind(-1)
    rows = (
        cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr,
        sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr,
        -sp, cp * sr, cp * cr,
    )  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def matrix_to_euler(matrix: Annotated[Tensor, "... 3 3"]) -> Annotated[Tensor, "... 3"]:
    """Roll, pitch and yaw (rad) of rotation matrices; pitch in [-pi/2, pi/2]."""
    roll = torch.atan2(matrix[..., 2, 1], matrix[..., 2, 2])
    pitch = torch.atan2(-matrix[..., 2, 0], torch.hypot(matrix[..., 2, 1], matrix[..., 2, 2]))
    yaw = torch.atan2(matrix[..., 1, 0], matrix[..., 0, 0])
    return torch.stack([roll, pitch, yaw], dim=-1)


def vector_to_matrix(vector: Annotated[Tensor, "... 3"]) -> Annotated[Tensor, "... 3 3"]:
    """Rotation matrices of rotation vectors (rad): I + (sin a / a) K + ((1 - cos a) / a^2) K^2."""
    square = vector.square().sum(-1)
    small = square < 1e-8
    angle = torch.where(small, 1.0, square).sqrt()
    first = torch.where(small, 1 - square / 6, angle.sin() / angle)
    second = torch.where(small, 0.5 - square / 24, (1 - angle.cos()) / angle.square())
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return identity + first[..., None, None] * cross + second[..., None, None] * (cross @ cross)


def vector_to_euler(vector: Annotated[Tensor, "... 3"]) -> Annotated[Tensor, "... 3"]:
    """Roll, pitch and yaw of rotation vectors, both in rad."""
    return matrix_to_euler(vector_to_matrix(vector))


def integrate(pose: Pose, motion: Pose) -> Pose:
    """The pose after a motion: positions add, R_next = R_motion R, the closedness is clipped to [0, 1]."""
    turned = euler_to_matrix(motion[..., 3:6]) @ euler_to_matrix(pose[..., 3:6])
    gripper = (pose[..., 6:] + motion[..., 6:]).clamp(0, 1)
    return torch.cat([pose[..., :3] + motion[..., :3], matrix_to_euler(turned), gripper], dim=-1)


def pose_motion(start: Pose, stop: Pose) -> Pose:
    """The motion from one pose to another."""
    turned = euler_to_matrix(stop[..., 3:6]) @ euler_to_matrix(start[..., 3:6]).mT
    return torch.cat([stop[..., :3] - start[..., :3], matrix_to_euler(turned), stop[..., 6:] - start[..., 6:]], dim=-1)


def in_camera(pose: Pose, camera: Annotated[Tensor, "... 6"]) -> Pose:
    """Base-frame poses in a camera's frame; `camera` is its position (m) and Euler angles (rad) in the base frame."""
    to_camera = euler_to_matrix(camera[..., 3:6]).mT
    place = (to_camera @ (pose[..., :3] - camera[..., :3])[..., None])[..., 0]
    turned = matrix_to_euler(to_camera @ euler_to_matrix(pose[..., 3:6]))
    return torch.cat([place, turned, pose[..., 6:]], dim=-1)


def check_pose(pose: Tensor) -> None:
    """Refuse invalid poses; synchronises with the device, so call it where poses enter and not while planning.

    Raises:
        ValueError: If the width is not seven (a quaternion has eight), angles seem to be degrees, or the gripper is not
            in [0, 1].
    """
    check_pose_width(pose)
    if not bool(torch.isfinite(pose).all()):
        raise ValueError("a pose holds values that are not finite")
    angle, gripper = pose[..., 3:6].abs().amax(), pose[..., 6]
    if bool(angle > LARGEST_ANGLE_RAD):
        raise ValueError(
            f"roll, pitch and yaw must be radians within +-2 pi, got {float(angle):.4g}: degrees? use torch.deg2rad"
        )
    if bool((gripper < -LOOSE).any() | (gripper > 1 + LOOSE).any()):
        low, high = (float(value) for value in gripper.aminmax())
        raise ValueError(f"the gripper must be a closedness from 0 (open) to 1 (closed), got {low:.4g} to {high:.4g}")


def check_pose_width(pose: Tensor) -> None:
    """Refuse poses of another width.

    Raises:
        ValueError: Explains the seven entries expected, and the probable cause of eight.
    """
    if pose.dim() < 1 or pose.shape[-1] != POSE_DIM:
        hint = ": a quaternion? give Euler angles instead" if pose.dim() and pose.shape[-1] == 8 else ""
        raise ValueError(
            "a pose has 7 numbers, x y z (m), roll pitch yaw (rad) and gripper closedness, got a tensor of shape "
            f"{tuple(pose.shape)}{hint}"
        )


class _PoseReader(nn.Module):
    def gap(self, predicted: Pose, true: Pose) -> Tensor:
        """Mean squared difference of two poses `(..., 7)`, rotations compared as matrices."""
        parts = [
            predicted[..., :3] - true[..., :3],
            (euler_to_matrix(predicted[..., 3:6]) - euler_to_matrix(true[..., 3:6])).flatten(-2),
            predicted[..., 6:] - true[..., 6:],
        ]
        return torch.cat(parts, dim=-1).square().mean()


class GivenPose(_PoseReader):
    """Proprioception that is already a pose, and motions with Euler angles."""

    width = POSE_DIM

    def forward(self, proprio: Annotated[Tensor, "... 7"]) -> Pose:
        """The pose, after checking its width."""
        check_pose_width(proprio)
        return proprio

    def motion(self, actions: Annotated[Tensor, "... 7"]) -> Annotated[Tensor, "... 7"]:
        """The motion commanded by an action."""
        return actions


class ArmPose(_PoseReader):
    """Reads the pose from an arm's proprioception, and motions from actions with rotation vectors.

    Args:
        position: Indices of x, y and z (m); negative indices count from the end, after any number of joints.
        rotation: Indices of the rotation vector (rad).
        opening: Index of the gripper opening (m).
        widest_m: Gripper opening with closedness 0; no opening has closedness 1.
        gripper_per_action: Change of the closedness per unit of an action's last entry.
        attitude: Euler angles (rad) of the hand at a zero rotation vector.
    """

    def __init__(
        self,
        *,
        position: Sequence[int] = (-6, -5, -4),
        rotation: Sequence[int] = (-3, -2, -1),
        opening: int = -7,
        widest_m: float = 0.04,
        gripper_per_action: float = 1.0,
        attitude: Sequence[float] = (math.pi, 0.0, 0.0),
    ) -> None:
        super().__init__()
        if widest_m <= 0 or len(position) != 3 or len(rotation) != 3 or len(attitude) != 3:
            raise ValueError(
                f"need widest_m > 0 and three places each, got {widest_m}, {tuple(position)}, {tuple(rotation)} and "
                f"{tuple(attitude)}"
            )
        self.columns = (*position, *rotation, opening)
        self.widest_m, self.gripper_per_action = widest_m, gripper_per_action
        home = euler_to_matrix(torch.tensor(attitude, dtype=torch.float64))
        self.register_buffer("home", home.float(), persistent=False)

    @property
    def width(self) -> int:
        """Minimum width of the proprioception."""
        return max(column + 1 if column >= 0 else -column for column in self.columns)

    def forward(self, proprio: Annotated[Tensor, "... P"]) -> Pose:
        """Proprioception `(..., P)` to poses `(..., 7)`.

        Raises:
            ValueError: If it has fewer entries than are read.
        """
        if proprio.shape[-1] < self.width:
            raise ValueError(
                f"the pose is read from the numbers {self.columns} of the proprioception, which has "
                f"{proprio.shape[-1]} of them"
            )
        place, vector, opening = proprio[..., list(self.columns)].split((3, 3, 1), dim=-1)
        angles = matrix_to_euler(vector_to_matrix(vector) @ self.get_buffer("home").to(vector.dtype))
        return torch.cat([place, angles, (1 - opening / self.widest_m).clamp(0, 1)], dim=-1)

    def motion(self, actions: Annotated[Tensor, "... 7"]) -> Annotated[Tensor, "... 7"]:
        """The motion commanded by an action."""
        check_pose_width(actions)
        gripper = self.gripper_per_action * actions[..., 6:]
        return torch.cat([actions[..., :3], vector_to_euler(actions[..., 3:6]), gripper], dim=-1)


class HandPose(_PoseReader):
    """Reads the pose from a robot map's gripper and end effector, and motions from differences of two.

    Proprioception: closedness of the gripper in [0, 1], x y z (m), rotation vector (rad). Actions: dx dy dz (m),
    rotation vector (rad), change of the closedness.
    """

    width = POSE_DIM

    def forward(self, proprio: Annotated[Tensor, "... 7"]) -> Pose:
        """Proprioception `(..., 7)` to poses `(..., 7)`."""
        check_pose_width(proprio)
        gripper, place, vector = proprio.split((1, 3, 3), dim=-1)
        return torch.cat([place, vector_to_euler(vector), gripper.clamp(0, 1)], dim=-1)

    def motion(self, actions: Annotated[Tensor, "... 7"]) -> Annotated[Tensor, "... 7"]:
        """The motion commanded by an action."""
        check_pose_width(actions)
        return torch.cat([actions[..., :3], vector_to_euler(actions[..., 3:6]), actions[..., 6:]], dim=-1)


PoseReader = GivenPose | ArmPose | HandPose
"""Readers of poses from proprioception and of motions from actions."""
