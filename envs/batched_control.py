"""The Cartesian control of `envs.control` for many rows at once: the same arithmetic in numpy, equal to rounding.

Axis letters: R rows.
"""

from __future__ import annotations

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from envs.control import DAMPING, ITERATIONS, LARGEST_STEP_RAD, NULL_GAIN
from envs.plant import Array

CLOSE_ENOUGH = 1e-5
LINKS = tuple(f"link{number}" for number in range(1, 8))


class BatchedKinematics:
    """Forward and inverse kinematics of the arm in the base frame, for rows of joints `(R, 7)`.

    Args:
        model: The robot's model: a chain of hinges about their local z axes from `base` to the site `ee`.
        home: Posture `(7,)` that the spare joint is pulled to.
    """

    def __init__(self, model: mujoco.MjModel, home: Array) -> None:
        self.home = home
        bodies = [model.body(name).id for name in (*LINKS, "hand")]
        site = model.site("ee").id
        self._offsets = np.array(model.body_pos[bodies])
        self._turns = np.stack([_matrix(model.body_quat[body]) for body in bodies])
        self._tip_offset, self._tip_turn = np.array(model.site_pos[site]), _matrix(model.site_quat[site])
        self._low, self._high = model.jnt_range[:7, 0] + 0.01, model.jnt_range[:7, 1] - 0.01

    def pose(self, joints: Array) -> tuple[Array, Array]:
        """Position `(R, 3)` and rotation `(R, 3, 3)` of the hand in the base frame."""
        at, turned, _, _ = self._chain(joints)
        return at, turned

    def solve(self, joints: Array, position: Array, rotation: Array) -> Array:
        """Joints `(R, 7)` near `joints` that reach positions `(R, 3)` and rotations `(R, 3, 3)`."""
        solution = np.array(joints, dtype=np.float64)
        rows = np.arange(len(solution))
        for _ in range(ITERATIONS):
            at, turned, origins, axes = self._chain(solution[rows])
            miss = rotation[rows] @ turned.transpose(0, 2, 1)
            error = np.concatenate([position[rows] - at, Rotation.from_matrix(miss).as_rotvec()], axis=1)
            open_ = np.abs(error).max(axis=1) >= CLOSE_ENOUGH
            rows = rows[open_]
            if not rows.size:
                break
            lever = np.cross(axes[open_], at[open_, None] - origins[open_])
            jacobian = np.concatenate([lever, axes[open_]], axis=2).transpose(0, 2, 1)  # (R, 6, 7)
            solution[rows] = self._improved(solution[rows], jacobian, error[open_])
        return solution

    def _improved(self, joints: Array, jacobian: Array, error: Array) -> Array:
        """One damped step, with the spare joint drawn home."""
        back = jacobian.transpose(0, 2, 1)
        inverse = back @ np.linalg.inv(jacobian @ back + DAMPING**2 * np.eye(6))
        step = (inverse @ error[..., None])[..., 0]
        homeward = self.home - joints
        step += NULL_GAIN * (homeward - (inverse @ (jacobian @ homeward[..., None]))[..., 0])
        largest = np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-9)
        return np.clip(joints + step * np.minimum(1.0, LARGEST_STEP_RAD / largest), self._low, self._high)

    def _chain(self, joints: Array) -> tuple[Array, Array, Array, Array]:
        """Hand position and rotation, joint origins `(R, 7, 3)` and joint axes `(R, 7, 3)`."""
        cos, sin = np.cos(joints), np.sin(joints)
        at, turned = np.zeros((len(joints), 3)), np.broadcast_to(np.eye(3), (len(joints), 3, 3))
        origins, axes = np.empty((len(joints), 7, 3)), np.empty((len(joints), 7, 3))
        for joint in range(7):
            at = at + turned @ self._offsets[joint]
            frame = turned @ self._turns[joint]
            x, y = frame[..., 0], frame[..., 1]
            c, s = cos[:, joint, None], sin[:, joint, None]
            turned = np.stack([c * x + s * y, c * y - s * x, frame[..., 2]], axis=-1)
            origins[:, joint], axes[:, joint] = at, frame[..., 2]
        at = at + turned @ self._offsets[7]
        turned = turned @ self._turns[7]
        return at + turned @ self._tip_offset, turned @ self._tip_turn, origins, axes


def _matrix(quaternion: Array) -> Array:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)
