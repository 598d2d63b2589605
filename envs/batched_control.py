"""The Cartesian control of `envs.control` for many rows in parallel: equal up to rounding.

Axis letters: R rows.
"""

from __future__ import annotations

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from jepa_mpc.envs.control import DAMPING, ITERATIONS, LARGEST_STEP_RAD, pull_home
from jepa_mpc.envs.plant import Array
from jepa_mpc.envs.robots import Robot

CLOSE_ENOUGH = 1e-5
TINY = 1e-12
REVERSED = -0.9


class BatchedKinematics:
    """Forward and inverse kinematics of an arm in the base frame, for rows of joints `(R, joints)`.

    Args:
        robot: The arm; the null space pulls its joints to the home posture.
        model: Its model: a chain of hinges from the body of the base's site to the site of the hand.
    """

    def __init__(self, robot: Robot, model: mujoco.MjModel) -> None:
        self.home = robot.home(model)
        self._stages = chain(robot, model)
        low, high = model.jnt_range[robot.arm].T
        self._low, self._high = low + 0.01, high - 0.01
        self._pull = pull_home(robot)

    def pose(self, joints: Array) -> tuple[Array, Array]:
        """Position `(R, 3)` and rotation `(R, 3, 3)` of the hand in the base frame."""
        at, turned, _, _ = self._chain(joints)
        return at, turned

    def solve(self, joints: Array, position: Array, rotation: Array) -> Array:
        """Joints `(R, joints)` near `joints` that reach positions `(R, 3)` and rotations `(R, 3, 3)`."""
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
            jacobian = np.concatenate([lever, axes[open_]], axis=2).transpose(0, 2, 1)  # (R, 6, joints)
            solution[rows] = self._improved(solution[rows], jacobian, error[open_])
        return solution

    def _improved(self, joints: Array, jacobian: Array, error: Array) -> Array:
        """One damped step, with the null space pulled to the home posture."""
        back = jacobian.transpose(0, 2, 1)
        inverse = back @ np.linalg.inv(jacobian @ back + DAMPING**2 * np.eye(6))
        step = (inverse @ error[..., None])[..., 0]
        homeward = self.home - joints
        step += self._pull * (homeward - (inverse @ (jacobian @ homeward[..., None]))[..., 0])
        largest = np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-9)
        return np.clip(joints + step * np.minimum(1.0, LARGEST_STEP_RAD / largest), self._low, self._high)

    def _chain(self, joints: Array) -> tuple[Array, Array, Array, Array]:
        """Hand position and rotation, joint origins and joint axes `(R, joints, 3)`."""
        cos, sin = np.cos(joints), np.sin(joints)
        count, width = joints.shape
        at, turned = np.zeros((count, 3)), np.repeat(np.eye(3)[None], count, axis=0)
        origins, axes = np.empty((count, width, 3)), np.empty((count, width, 3))
        for place, joint in self._stages:
            at, turned = _moved(at, turned, place)
            if joint is None:
                continue
            frame = turned
            c, s = cos[:, joint, None], sin[:, joint, None]
            turned = frame.copy()
            turned[:, :, 0] = c * frame[:, :, 0] + s * frame[:, :, 1]
            turned[:, :, 1] = c * frame[:, :, 1] - s * frame[:, :, 0]
            origins[:, joint], axes[:, joint] = at, frame[:, :, 2]
        return at, turned, origins, axes


Stage = tuple[Array, int | None]


def chain(robot: Robot, model: mujoco.MjModel) -> list[Stage]:
    """The chain from base to hand: fixed transforms `(3, 4)`, each with the joint about z after it.

    For a hinge with another axis or an anchor off its body's origin, the transform before it leads into a frame with
    that axis as z, and the transform after it leads back.

    Raises:
        ValueError: If the hand is not a descendant of the base, or a body on the chain has more than one joint.
    """
    base, site = int(model.site_bodyid[model.site(robot.base).id]), model.site(robot.hand).id
    bodies = [int(model.site_bodyid[site])]
    while bodies[-1] not in (base, 0):
        bodies.append(int(model.body_parentid[bodies[-1]]))
    if bodies.pop() != base or (model.body_jntnum[bodies] > 1).any():
        raise ValueError(
            f"{robot.name}: need a chain from {robot.base} to {robot.hand} with one joint per body at most"
        )
    stages: list[Stage] = []
    back = np.eye(4)
    for body in reversed(bodies):
        place = back @ _frame(model.body_quat[body], model.body_pos[body])
        joint = int(model.body_jntadr[body]) if model.body_jntnum[body] else None
        turning = np.eye(4) if joint is None else _frame(_towards(model.jnt_axis[joint]), model.jnt_pos[joint])
        stages.append(((place @ turning)[:3], joint))
        back = _undone(turning)
    stages.append(((back @ _frame(model.site_quat[site], model.site_pos[site]))[:3], None))
    return stages


def rotation_vectors(rotations: Array) -> Array:
    """Axis times angle `(R, 3)` of rotation matrices `(R, 3, 3)`."""
    m = rotations
    sine = 0.5 * np.stack([m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]], axis=1)
    length = np.sqrt(np.square(sine).sum(axis=1))
    cosine = 0.5 * (m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2] - 1.0)
    scale = np.arctan2(length, cosine) / np.maximum(length, TINY)
    vectors = sine * np.where(length > TINY, scale, 1.0)[:, None]
    reversed_ = cosine < REVERSED  # near half a turn the sine is too small to give the axis
    if reversed_.any():
        vectors[reversed_] = Rotation.from_matrix(m[reversed_]).as_rotvec()
    return vectors


def _moved(at: Array, turned: Array, place: Array) -> tuple[Array, Array]:
    """Positions `(R, 3)` and frames `(R, 3, 3)` after a fixed transform `(3, 4)`: a rotation and an offset."""
    both = (turned.reshape(-1, 3) @ place).reshape(-1, 3, 4)
    return at + both[:, :, 3], both[:, :, :3]


def _cross(one: Array, other: Array) -> Array:
    (a, b, c), (x, y, z) = np.moveaxis(one, -1, 0), np.moveaxis(other, -1, 0)
    return np.stack([b * z - c * y, c * x - a * z, a * y - b * x], axis=-1)


def _frame(quaternion: Array, at: Array) -> Array:
    """A rotation and an offset as one matrix `(4, 4)`."""
    matrix, turn = np.eye(4), np.zeros(9)
    mujoco.mju_quat2Mat(turn, quaternion)
    matrix[:3, :3], matrix[:3, 3] = turn.reshape(3, 3), at
    return matrix


def _towards(axis: Array) -> Array:
    """Quaternion of the shortest rotation from z to an axis."""
    quaternion = np.zeros(4)
    mujoco.mju_quatZ2Vec(quaternion, axis)
    return quaternion


def _undone(frame: Array) -> Array:
    inverse = np.eye(4)
    inverse[:3, :3], inverse[:3, 3] = frame[:3, :3].T, -frame[:3, :3].T @ frame[:3, 3]
    return inverse
