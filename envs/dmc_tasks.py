"""The supported dm_control tasks: sensors, goals and costs, as records.

Each reads its sensors from the physics (time, positions, velocities), so thousands of rows are read together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mujoco
import numpy as np

from jepa_mpc.envs.cart_pole import SENSORS as CART_POLE_SENSORS
from jepa_mpc.envs.cart_pole import read_joints, stands, swing_cost
from jepa_mpc.envs.costs import apart, squares, task_cost, tilt, weighted
from jepa_mpc.envs.plant import Array
from jepa_mpc.envs.tracing import Tracked
from jepa_mpc.interfaces import Cost

REACHER_LINK_M = 0.12
JACO_TIP, JACO_TARGET = "jaco_arm/jaco_hand/pinchsite", "target_site"
ITERATIONS, DAMPING, LARGEST_TURN_RAD = 100, 0.05, 0.2

Reader = Callable[[mujoco.MjModel], Callable[[Array, Array], Array]]


@dataclass(frozen=True, kw_only=True)
class DmcTask:
    """One task of dm_control with its planning setup.

    Args:
        domain: Domain of the suite, or "manipulation".
        task: Name within the domain.
        repeat: Control steps of dm_control per action.
        horizon: Recommended planning horizon in actions.
        budget: Actions per episode.
        sensors: Name and unit of each sensor.
        read: Makes a reader of sensors `(R, K, Q)` for a model.
        goal_sensors: The sensors at the goal of a model `(Q,)`.
        goal_positions: Positions at the goal of a model, given the current ones.
        cost: Cost of predicted futures.
        distance: Distance of sensors to the goal's sensors, in the task's own measure.
        reached: Whether sensors are at the goal.
        camera: The camera of the images.
        tracked: The tracked part of the task.
        describe: The task in a sentence.
        holds: Whether an episode starts at the goal and should stay there.
    """

    domain: str
    task: str
    repeat: int
    horizon: int
    budget: int
    sensors: tuple[str, ...]
    read: Reader
    goal_sensors: Callable[[mujoco.MjModel], Array]
    goal_positions: Callable[[mujoco.MjModel, Array], Array]
    cost: Callable[[], Cost]
    distance: Callable[[Array, Array], float]
    reached: Callable[[Array, Array], bool]
    camera: str
    tracked: Tracked
    describe: str
    holds: bool = False


def _joints(model: mujoco.MjModel) -> Callable[[Array, Array], Array]:
    return read_joints


def _zeros(count: int) -> Callable[[mujoco.MjModel], Array]:
    return lambda model: np.zeros(count)


def _zero_positions(model: mujoco.MjModel, positions: Array) -> Array:
    return np.zeros(model.nq)


def _cart_pole(task: str, describe: str) -> DmcTask:
    return DmcTask(
        domain="cartpole",
        task=task,
        repeat=4,
        horizon=25,
        budget=100,
        sensors=CART_POLE_SENSORS,
        read=_joints,
        goal_sensors=_zeros(4),
        goal_positions=_zero_positions,
        cost=swing_cost,
        distance=lambda now, goal: float(1.0 - np.cos(now[1]) + 0.5 * abs(now[0])),
        reached=lambda now, goal: stands(now),
        camera="fixed",
        tracked=Tracked(kind="geom", name="pole_1", far_end=True),
        describe=describe,
        holds=task == "balance",
    )


def _pendulum() -> DmcTask:
    return DmcTask(
        domain="pendulum",
        task="swingup",
        repeat=2,
        horizon=50,
        budget=100,
        sensors=("pole angle [rad]", "pole speed [rad/s]"),
        read=_joints,
        goal_sensors=_zeros(2),
        goal_positions=_zero_positions,
        cost=lambda: task_cost(weighted((1.0, tilt(0)), (1.0, squares([(1, 0.01)]))), at_end=1.0),
        distance=lambda now, goal: float(1.0 - np.cos(now[0])),
        reached=lambda now, goal: bool(np.cos(now[0]) > np.cos(np.deg2rad(8)) and abs(now[1]) < 1.0),
        camera="fixed",
        tracked=Tracked(kind="geom", name="pole", far_end=True),
        describe="Swing a pole up with a weak motor and hold it: within 8 degrees of upright, slower than 1 rad/s.",
    )


def _point_mass() -> DmcTask:
    return DmcTask(
        domain="point_mass",
        task="easy",
        repeat=2,
        horizon=20,
        budget=60,
        sensors=("x [m]", "y [m]", "x speed [m/s]", "y speed [m/s]"),
        read=_joints,
        goal_sensors=_zeros(4),
        goal_positions=_zero_positions,
        cost=lambda: task_cost(weighted((1.0, apart((0, 1))), (0.1, apart((2, 3))))),
        distance=lambda now, goal: float(np.linalg.norm(now[:2])),
        reached=lambda now, goal: bool(np.linalg.norm(now[:2]) < 0.015),
        camera="fixed",
        tracked=Tracked(kind="geom", name="pointmass"),
        describe="Bring a point mass to the target in the middle; reached within 1.5 cm.",
    )


def _reacher(task: str, reached_m: float) -> DmcTask:
    return DmcTask(
        domain="reacher",
        task=task,
        repeat=2,
        horizon=15,
        budget=60,
        sensors=("finger x [m]", "finger y [m]", "shoulder speed [rad/s]", "wrist speed [rad/s]"),
        read=lambda model: _read_reacher,
        goal_sensors=lambda model: np.array([*model.geom("target").pos[:2], 0.0, 0.0]),
        goal_positions=_reacher_posture,
        cost=lambda: task_cost(weighted((1.0, apart((0, 1))), (0.003, apart((2, 3)))), at_end=0.5),
        distance=lambda now, goal: float(np.linalg.norm(now[:2] - goal[:2])),
        reached=lambda now, goal: bool(np.linalg.norm(now[:2] - goal[:2]) < reached_m),
        camera="fixed",
        tracked=Tracked(kind="geom", name="finger"),
        describe=f"Bring the tip of a two-link arm to the target; reached within {100 * reached_m:.1f} cm.",
    )


def _read_reacher(physics: Array, sensordata: Array) -> Array:
    shoulder, wrist = physics[..., 1], physics[..., 2]
    x = REACHER_LINK_M * (np.cos(shoulder) + np.cos(shoulder + wrist))
    y = REACHER_LINK_M * (np.sin(shoulder) + np.sin(shoulder + wrist))
    return np.stack([x, y, physics[..., 3], physics[..., 4]], axis=-1)


def _reacher_posture(model: mujoco.MjModel, positions: Array) -> Array:
    """Posture for two links of equal length: the bisector of the two points at the target."""
    x, y = model.geom("target").pos[:2]
    bend = np.arccos(np.clip(np.hypot(x, y) / (2 * REACHER_LINK_M), -1.0, 1.0))
    return np.array([np.arctan2(y, x) - bend, 2 * bend])


def _jaco() -> DmcTask:
    return DmcTask(
        domain="manipulation",
        task="reach_site_features",
        repeat=2,
        horizon=8,
        budget=50,
        sensors=("tip x [m]", "tip y [m]", "tip z [m]"),
        read=_read_jaco,
        goal_sensors=lambda model: np.array(model.site(JACO_TARGET).pos),
        goal_positions=_jaco_posture,
        cost=lambda: task_cost(apart((0, 1, 2)), at_end=0.5),
        distance=lambda now, goal: float(np.linalg.norm(now - goal)),
        reached=lambda now, goal: bool(np.linalg.norm(now - goal) < 0.05),
        camera="front_close",
        tracked=Tracked(kind="site", name=JACO_TIP),
        describe="Bring the hand of a Jaco arm to a place in the air; reached within 5 cm. Its meshes make it slow.",
    )


def _read_jaco(model: mujoco.MjModel) -> Callable[[Array, Array], Array]:
    """A reader that runs the kinematics row by row, which is cheap compared with mesh contacts."""
    data, site = mujoco.MjData(model), model.site(JACO_TIP).id

    def read(physics: Array, sensordata: Array) -> Array:
        places = np.full((*physics.shape[:2], 3), np.nan)
        for row, step in np.ndindex(physics.shape[:2]):
            if np.isfinite(physics[row, step]).all():
                data.qpos[:] = physics[row, step, 1 : 1 + model.nq]
                mujoco.mj_kinematics(model, data)
                places[row, step] = data.site_xpos[site]
        return places

    return read


def _jaco_posture(model: mujoco.MjModel, positions: Array) -> Array:
    """Joints that place the tip at the target, by damped least squares from the current ones."""
    data, site = mujoco.MjData(model), model.site(JACO_TIP).id
    data.qpos[:] = positions
    jacobian = np.zeros((3, model.nv))
    for _ in range(ITERATIONS):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        gap = np.array(model.site(JACO_TARGET).pos) - data.site_xpos[site]
        mujoco.mj_jacSite(model, data, jacobian, None, site)
        arm = jacobian[:, :6]
        turn = arm.T @ np.linalg.solve(arm @ arm.T + DAMPING**2 * np.eye(3), gap)
        data.qpos[:6] += np.clip(turn, -LARGEST_TURN_RAD, LARGEST_TURN_RAD)
    return np.array(data.qpos)


DMC_TASKS: Mapping[str, DmcTask] = {
    "cartpole-balance": _cart_pole("balance", "Hold the pole of a cart upright: within 18 degrees, near the middle."),
    "cartpole-swingup": _cart_pole(
        "swingup", "Swing the pole of a cart up and hold it: within 18 degrees, near the middle."
    ),
    "pendulum-swingup": _pendulum(),
    "point-mass-easy": _point_mass(),
    "reacher-easy": _reacher("easy", 0.06),
    "reacher-hard": _reacher("hard", 0.025),
    "jaco-reach-site": _jaco(),
}
