"""Cartesian control of an arm: from a 7-number command to joint targets, by damped least squares.

A command is (dx, dy, dz [m], rotation vector [rad], gripper): the position moves from the *measured* hand position, the
orientation from the *commanded* one (so it cannot drift), and the last number closes (+) or opens (-) the gripper by
that share.

    dq = J^T (J J^T + damping^2 I)^-1 e + (I - J^+ J) gain (q_home - q)     (Wampler 1986; Nakamura & Hanafusa 1986)
"""

from __future__ import annotations

import mujoco
import numpy as np

from jepa_mpc.envs.robots import Robot

ITERATIONS = 8
DAMPING = 0.03
NULL_GAIN = 0.05
LARGEST_STEP_RAD = 0.25
POSE_DIM = 6


class InverseKinematics:
    """Solves for arm joints that place the hand at a pose in the base frame.

    Args:
        robot: The arm; the null space pulls its joints to the home posture.
        model: Its model; positions of base and links are read at each call, so labs may move the base.
    """

    def __init__(self, robot: Robot, model: mujoco.MjModel) -> None:
        self.robot, self.model, self.home = robot, model, robot.home(model)
        self._data = mujoco.MjData(model)
        self._site = model.site(robot.hand).id
        self._base = model.site(robot.base).id
        self._low, self._high = model.jnt_range[robot.arm].T
        self._pull = pull_home(robot)

    def pose(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position `(3,)` and rotation `(3, 3)` of the hand in the base frame for arm joints `(joints,)`."""
        self._forward(joints)
        return self._hand_in_base()

    def solve(self, joints: np.ndarray, position: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, float]:
        """Arm joints `(joints,)` near `joints` that reach the pose, and the remaining position error (m)."""
        solution = np.array(joints, dtype=np.float64)
        jacobian = np.zeros((6, self.model.nv))
        to_base = np.zeros((6, 6))
        error = np.zeros(6)
        for _ in range(ITERATIONS):
            self._forward(solution)
            at, turned = self._hand_in_base()
            error[:3] = position - at
            error[3:] = rotation_vector(rotation @ turned.T)
            if np.abs(error).max() < 1e-5:
                break
            mujoco.mj_jacSite(self.model, self._data, jacobian[:3], jacobian[3:], self._site)
            base = self._data.site_xmat[self._base].reshape(3, 3).T
            to_base[:3, :3] = to_base[3:, 3:] = base
            arm = to_base @ jacobian[:, self.robot.arm]
            inverse = arm.T @ np.linalg.inv(arm @ arm.T + DAMPING**2 * np.eye(6))
            step = inverse @ error
            step += self._pull * (self.home - solution - inverse @ (arm @ (self.home - solution)))
            step *= min(1.0, LARGEST_STEP_RAD / max(float(np.abs(step).max()), 1e-9))
            solution = np.clip(solution + step, self._low + 0.01, self._high - 0.01)
        self._forward(solution)
        return solution, float(np.linalg.norm(position - self._hand_in_base()[0]))

    def _forward(self, joints: np.ndarray) -> None:
        self._data.qpos[self.robot.arm] = joints
        mujoco.mj_kinematics(self.model, self._data)
        mujoco.mj_comPos(self.model, self._data)

    def _hand_in_base(self) -> tuple[np.ndarray, np.ndarray]:
        base = self._data.site_xmat[self._base].reshape(3, 3)
        at = base.T @ (self._data.site_xpos[self._site] - self._data.site_xpos[self._base])
        return at, base.T @ self._data.site_xmat[self._site].reshape(3, 3)


def pull_home(robot: Robot) -> float:
    """Strength of the null-space pull to the home posture; without redundancy it would move the hand."""
    return NULL_GAIN if robot.num_joints > POSE_DIM else 0.0


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Axis times angle `(3,)` of a rotation matrix `(3, 3)`."""
    quaternion, vector = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation).ravel())
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector


def rotation_matrix(vector: np.ndarray) -> np.ndarray:
    """Rotation matrix `(3, 3)` of a rotation vector `(3,)`."""
    angle = float(np.linalg.norm(vector))
    quaternion, matrix = np.zeros(4), np.zeros(9)
    mujoco.mju_axisAngle2Quat(quaternion, vector / angle if angle > 0 else np.array([1.0, 0, 0]), angle)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)
