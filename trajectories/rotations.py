"""Rotation vectors, and the rotation part of pose differences, in numpy for whole sequences at once."""

from __future__ import annotations

import numpy as np


def quaternion(rotation_vector: np.ndarray) -> np.ndarray:
    """Unit quaternions (w x y z) of rotation vectors `... 3` in rad."""
    angle = np.linalg.norm(rotation_vector, axis=-1, keepdims=True)
    # sin(a/2)/a, with its limit 1/2 at 0
    scale = 0.5 * np.sinc(angle / (2 * np.pi))
    return np.concatenate([np.cos(angle / 2), scale * rotation_vector], axis=-1)


def rotation_vector(quaternion: np.ndarray) -> np.ndarray:
    """Rotation vectors `... 3` (angle in [0, pi]) of unit quaternions `... 4`."""
    quaternion = np.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    sine = np.linalg.norm(quaternion[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, quaternion[..., :1])
    return np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 2.0) * quaternion[..., 1:]


def multiply(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Quaternion product: the rotation `right` first, then `left`."""
    w1, v1, w2, v2 = left[..., :1], left[..., 1:], right[..., :1], right[..., 1:]
    return np.concatenate([w1 * w2 - (v1 * v2).sum(-1, keepdims=True), w1 * v2 + w2 * v1 + np.cross(v1, v2)], axis=-1)


def rotation_between(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """The rotation vector from one orientation to another, in the fixed frame.

        R(result) = R(stop) R(start)^T

    Args:
        start: Rotation vectors `... 3`, rad.
        stop: Rotation vectors `... 3`, rad.
    """
    inverse = quaternion(start.astype(np.float64)) * np.array([1.0, -1.0, -1.0, -1.0])
    return rotation_vector(multiply(quaternion(stop.astype(np.float64)), inverse))


def quaternion_of_euler(angles: np.ndarray) -> np.ndarray:
    """Unit quaternions (w x y z) of roll, pitch, yaw `... 3` in rad about the fixed axes x, y, z, in this order."""
    half = angles.astype(np.float64) / 2
    zero = np.zeros_like(half[..., 0])
    cos, sin = np.cos(half), np.sin(half)
    roll = np.stack([cos[..., 0], sin[..., 0], zero, zero], axis=-1)
    pitch = np.stack([cos[..., 1], zero, sin[..., 1], zero], axis=-1)
    yaw = np.stack([cos[..., 2], zero, zero, sin[..., 2]], axis=-1)
    return multiply(yaw, multiply(pitch, roll))


def euler_of_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """Roll, pitch, yaw `... 3` (pitch within a quarter turn) of unit quaternions `... 4`; inverse of the above."""
    w, x, y, z = np.moveaxis(quaternion, -1, 0)
    roll = np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = np.arcsin(np.clip(2 * (w * y - z * x), -1, 1))
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return np.stack([roll, pitch, yaw], axis=-1)


def apply_rotation(turn: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Rotation vectors `... 3` of R(turn) R(start), the inverse of `rotation_between`."""
    return rotation_vector(multiply(quaternion(turn.astype(np.float64)), quaternion(start.astype(np.float64))))
