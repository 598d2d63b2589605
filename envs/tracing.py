"""Where the moving part of a task is seen in a picture, for states that were only imagined: plans drawn into images."""

from __future__ import annotations

from typing import Annotated

import mujoco
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.plant import PHYSICS, Array, Plant, layout_of

SITES = ("ee", "jaco_arm/jaco_hand/pinchsite")
BODIES = ("block",)
GEOMS = ("finger", "pointmass")
POLES = ("pole", "pole_1")


def pixel_path(
    plant: Plant, states: Annotated[Array, "H D"], *, camera: str, seen: mujoco.MjData
) -> Annotated[NDArray[np.float64], "H 2"]:
    """Image coordinates in [0, 1] (x right, y down) of what a task moves; NaN in states that are not finite.

    Args:
        plant: The plant whose states they are.
        states: Rows of the full state.
        camera: Name of the camera.
        seen: The present scene: the camera stands where it stands there.

    Raises:
        ValueError: If nothing in the model is known to be followed.
    """
    model = plant.model
    data, places = mujoco.MjData(model), np.full((len(states), 3), np.nan)
    physics = layout_of(model, plant.memory_dim).split(np.asarray(states, dtype=np.float64))[0]
    for row in np.flatnonzero(np.isfinite(physics).all(axis=1)):
        mujoco.mj_setState(model, data, physics[row], PHYSICS)
        mujoco.mj_kinematics(model, data)
        places[row] = followed(model, data)
    return project(model, seen, places, camera)


def followed(model: mujoco.MjModel, data: mujoco.MjData) -> Annotated[Array, "3"]:
    """Where in the world the part is that a task moves: its hand, block, fingertip, or the end of its pole.

    Raises:
        ValueError: If there is none that is known.
    """
    for body in BODIES:
        if (number := _number(model, mujoco.mjtObj.mjOBJ_BODY, body)) >= 0:
            return np.array(data.xpos[number])
    for site in SITES:
        if (number := _number(model, mujoco.mjtObj.mjOBJ_SITE, site)) >= 0:
            return np.array(data.site_xpos[number])
    for geom in GEOMS:
        if (number := _number(model, mujoco.mjtObj.mjOBJ_GEOM, geom)) >= 0:
            return np.array(data.geom_xpos[number])
    for geom in POLES:
        if (number := _number(model, mujoco.mjtObj.mjOBJ_GEOM, geom)) >= 0:
            return _far_end(model, data, number)
    raise ValueError(f"this model has none of {', '.join((*BODIES, *SITES, *GEOMS, *POLES))}: nothing to follow")


def project(
    model: mujoco.MjModel, data: mujoco.MjData, places: Annotated[Array, "H 3"], camera: str
) -> Annotated[Array, "H 2"]:
    """Image coordinates in [0, 1] of places in the world; NaN behind the camera."""
    number = model.camera(camera).id
    seen = (places - data.cam_xpos[number]) @ data.cam_xmat[number].reshape(3, 3)
    depth = np.where(seen[:, 2:] < -1e-6, -seen[:, 2:], np.nan)
    scale = 0.5 / np.tan(np.deg2rad(model.cam_fovy[number]) / 2)
    return np.array([0.5, 0.5]) + scale * seen[:, :2] * np.array([1.0, -1.0]) / depth


def _far_end(model: mujoco.MjModel, data: mujoco.MjData, geom: int) -> Array:
    """The end of a capsule that is farther from its body's joint."""
    axis = data.geom_xmat[geom].reshape(3, 3)[:, 2] * model.geom_size[geom, 1]
    joint = data.xpos[model.geom_bodyid[geom]]
    ends = data.geom_xpos[geom] + axis, data.geom_xpos[geom] - axis
    return np.array(max(ends, key=lambda end: float(np.linalg.norm(end - joint))))


def _number(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str) -> int:
    return int(mujoco.mj_name2id(model, kind, name))
