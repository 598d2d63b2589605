"""The table at which things are handled: the arm of reach, an object, clutter that collides, a camera at the wrist."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np

from jepa_mpc.envs.labs import Lab
from jepa_mpc.envs.robots import HOME, Robot
from jepa_mpc.envs.scene import NUM_CLUTTER, Appearance, Scene, model_spec
from jepa_mpc.envs.things import BODY, add_object

OPEN_M = 0.04
WRIST_AT_M, WRIST_LOOKS_AT_M, WRIST_FOVY_DEG = (0.075, 0.0, 0.0), (0.03, 0.0, 0.13), 80.0
SENSORS = ("ee_in_base", "object_in_base", "object_up", "opening", "finger_force")


def physical_spec(appearance: Appearance, robot: Robot) -> mujoco.MjSpec:
    """The model of reach with all of that and the sensors of `SENSORS`."""
    spec = model_spec(appearance, robot)
    add_object(spec)
    _roughen_fingers(spec, robot)
    _couple_fingers(spec, robot)
    _add_wrist_camera(spec, robot)
    _add_sensors(spec, robot)
    for number in range(NUM_CLUTTER):
        spec.geom(f"clutter{number}").conaffinity = 1
    home = spec.key(HOME)
    fingers = [OPEN_M] * len(robot.fingers)
    home.qpos = [*list(home.qpos)[robot.arm], *fingers, 0.5, 0.0, 0.03, 1.0, 0.0, 0.0, 0.0]
    home.ctrl = [*list(home.ctrl)[robot.arm], *fingers]
    return spec


def still(lab: Lab) -> Lab:
    """The lab with clutter that does not drift: what collides is part of the model."""
    return replace(lab, distractors=tuple(replace(item, drift_m_s=(0.0, 0.0)) for item in lab.distractors))


def make_physical(scene: Scene) -> None:
    """Let the clutter that the scene shows collide, and no other, and free the object of the joints' friction.

    Call it after `Scene.apply`.
    """
    model = scene.model
    free = int(model.joint(BODY).dofadr[0])
    model.dof_frictionloss[free : free + 6] = 0.0
    for number in range(NUM_CLUTTER):
        geom, body = model.geom(f"clutter{number}").id, model.body(f"clutter{number}").id
        model.geom_conaffinity[geom] = int(model.geom_rgba[geom, 3] > 0)
        reach = float(model.geom_rbound[geom])
        model.geom_aabb[geom] = [0.0, 0.0, 0.0, reach, reach, reach]  # the shape was changed after compilation
        if model.body_bvhnum[body]:
            model.bvh_aabb[model.body_bvhadr[body]] = model.geom_aabb[geom]


def clear_of_clutter(lab: Lab, spot_in_world_m: np.ndarray, *, margin_m: float) -> bool:
    """Whether a place `(2,)` on the table is farther than a margin from all clutter's outlines."""
    return all(
        np.linalg.norm(spot_in_world_m - np.array(item.at_m)) > margin_m + float(np.hypot(*item.size_m[:2]))
        for item in lab.distractors
    )


def _roughen_fingers(spec: mujoco.MjSpec, robot: Robot) -> None:
    """Fingers that grip: rough, and their friction rules over the object's."""
    for name in robot.fingers:
        for geom in spec.body(name).geoms:
            geom.name, geom.condim, geom.priority = name, 4, 2
            geom.friction = [1.5, 0.005, 0.0001]


def _couple_fingers(spec: mujoco.MjSpec, robot: Robot) -> None:
    """Fingers that move as one, as a parallel gripper's do: the opening stays wide only around what is between them."""
    first, *others = robot.fingers
    for other in others:
        equality = spec.add_equality(
            type=mujoco.mjtEq.mjEQ_JOINT, objtype=mujoco.mjtObj.mjOBJ_JOINT, name1=first, name2=other
        )
        equality.data[:5] = [0.0, 1.0, 0.0, 0.0, 0.0]  # first = other
        equality.solref = [0.004, 1.0]


def _add_wrist_camera(spec: mujoco.MjSpec, robot: Robot) -> None:
    """In front of the hand, looking at the place below the fingertips."""
    back = np.array(WRIST_AT_M) - np.array(WRIST_LOOKS_AT_M)
    back /= np.linalg.norm(back)
    right = np.array([0.0, 1.0, 0.0])
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.stack([right, np.cross(back, right), back], axis=1).ravel())
    spec.site(robot.hand).parent.add_camera(name="wrist", pos=WRIST_AT_M, quat=quat, fovy=WRIST_FOVY_DEG)


def _add_sensors(spec: mujoco.MjSpec, robot: Robot) -> None:
    in_base = {"reftype": mujoco.mjtObj.mjOBJ_SITE, "refname": robot.base}
    of_object = {"objtype": mujoco.mjtObj.mjOBJ_BODY, "objname": BODY}
    spec.add_sensor(name="object_in_base", type=mujoco.mjtSensor.mjSENS_FRAMEPOS, **of_object, **in_base)
    spec.add_sensor(name="object_up", type=mujoco.mjtSensor.mjSENS_FRAMEZAXIS, **of_object, **in_base)
    finger = robot.fingers[0]
    spec.add_sensor(
        name="opening", type=mujoco.mjtSensor.mjSENS_JOINTPOS, objtype=mujoco.mjtObj.mjOBJ_JOINT, objname=finger
    )
    spec.add_sensor(
        name="finger_force",
        type=mujoco.mjtSensor.mjSENS_ACTUATORFRC,
        objtype=mujoco.mjtObj.mjOBJ_ACTUATOR,
        objname=finger,
    )
