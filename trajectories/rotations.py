"""Rotation vectors and what a pose difference needs of them, in numpy, for whole sequences at once."""

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
    """The rotation vector that leads from one attitude to another, seen from the fixed frame.

        R(result) = R(stop) R(start)^T

    Args:
        start: Rotation vectors `... 3`, rad.
        stop: Rotation vectors `... 3`, rad.
    """
    inverse = quaternion(start.astype(np.float64)) * np.array([1.0, -1.0, -1.0, -1.0])
    return rotation_vector(multiply(quaternion(stop.astype(np.float64)), inverse))
