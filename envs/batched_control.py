"""The Cartesian control of `envs.control` for many rows at once: the same arithmetic in numpy, equal to rounding.

Axis letters: R rows.
"""

from __future__ import annotations

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from jepa_mpc.envs.control import DAMPING, ITERATIONS, LARGEST_STEP_RAD, NULL_GAIN
from jepa_mpc.envs.plant import Array

CLOSE_ENOUGH = 1e-5
TINY = 1e-12
REVERSED = -0.9
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
        places = [(model.body_quat[body], model.body_pos[body]) for body in bodies]
        places.append((model.site_quat[site], model.site_pos[site]))
        self._places = [np.column_stack([_matrix(turn), offset]) for turn, offset in places]  # (3, 4) each
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
            miss = rotation_vectors(rotation[rows] @ turned.transpose(0, 2, 1))
            error = np.concatenate([position[rows] - at, miss], axis=1)
            open_ = np.abs(error).max(axis=1) >= CLOSE_ENOUGH
            rows = rows[open_]
            if not rows.size:
                break
            lever = _cross(axes[open_], at[open_, None] - origins[open_])
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
        count = len(joints)
        at, turned = np.zeros((count, 3)), np.repeat(np.eye(3)[None], count, axis=0)
        origins, axes = np.empty((count, 7, 3)), np.empty((count, 7, 3))
        for joint in range(7):
            at, frame = _moved(at, turned, self._places[joint])
            c, s = cos[:, joint, None], sin[:, joint, None]
            turned = frame.copy()
            turned[:, :, 0] = c * frame[:, :, 0] + s * frame[:, :, 1]
            turned[:, :, 1] = c * frame[:, :, 1] - s * frame[:, :, 0]
            origins[:, joint], axes[:, joint] = at, frame[:, :, 2]
        for place in self._places[7:]:
            at, turned = _moved(at, turned, place)
        return at, turned, origins, axes


def rotation_vectors(rotations: Array) -> Array:
    """Axis times angle `(R, 3)` of rotation matrices `(R, 3, 3)`."""
    m = rotations
    sine = 0.5 * np.stack([m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]], axis=1)
    length = np.sqrt(np.square(sine).sum(axis=1))
    cosine = 0.5 * (m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2] - 1.0)
    scale = np.arctan2(length, cosine) / np.maximum(length, TINY)
    vectors = sine * np.where(length > TINY, scale, 1.0)[:, None]
    reversed_ = cosine < REVERSED  # near half a turn the sine says little about the axis
    if reversed_.any():
        vectors[reversed_] = Rotation.from_matrix(m[reversed_]).as_rotvec()
    return vectors


def _moved(at: Array, turned: Array, place: Array) -> tuple[Array, Array]:
    """Positions `(R, 3)` and frames `(R, 3, 3)` after a fixed placement `(3, 4)`: a rotation and an offset."""
    both = (turned.reshape(-1, 3) @ place).reshape(-1, 3, 4)
    return at + both[:, :, 3], both[:, :, :3]


def _cross(one: Array, other: Array) -> Array:
    (a, b, c), (x, y, z) = np.moveaxis(one, -1, 0), np.moveaxis(other, -1, 0)
    return np.stack([b * z - c * y, c * x - a * z, a * y - b * x], axis=-1)


def _matrix(quaternion: Array) -> Array:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)
