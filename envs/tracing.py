"""Image positions of a task's moving part in predicted states, for drawing plans into images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.plant import PHYSICS, Array, Plant, layout_of

KINDS = {"body": mujoco.mjtObj.mjOBJ_BODY, "site": mujoco.mjtObj.mjOBJ_SITE, "geom": mujoco.mjtObj.mjOBJ_GEOM}


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """The tracked part of a task, as named in its model: the point whose predicted path is drawn.

    Args:
        kind: Kind of the model element.
        name: Its name in the model.
        far_end: For a capsule, track the end farther from its body's joint, instead of the centre.
    """

    kind: Literal["body", "site", "geom"]
    name: str
    far_end: bool = False


def pixel_path(
    plant: Plant, states: Annotated[Array, "H D"], *, tracked: Tracked, camera: str, seen: mujoco.MjData
) -> Annotated[NDArray[np.float64], "H 2"]:
    """Image coordinates in [0, 1] (x right, y down) of a task's tracked part; NaN in non-finite states.

    Args:
        plant: The plant of the states.
        states: Rows of the full state.
        tracked: The tracked part.
        camera: Name of the camera.
        seen: The current scene, which defines the camera pose.

    Raises:
        ValueError: If the model has no such element.
    """
    model = plant.model
    data, places = mujoco.MjData(model), np.full((len(states), 3), np.nan)
    physics = layout_of(model, plant.memory_dim).split(np.asarray(states, dtype=np.float64))[0]
    for row in np.flatnonzero(np.isfinite(physics).all(axis=1)):
        mujoco.mj_setState(model, data, physics[row], PHYSICS)
        mujoco.mj_kinematics(model, data)
        places[row] = followed(model, data, tracked)
    return project(model, seen, places, camera)


def followed(model: mujoco.MjModel, data: mujoco.MjData, tracked: Tracked) -> Annotated[Array, "3"]:
    """World position of a task's tracked part.

    Raises:
        ValueError: If the model has no such element.
    """
    number = int(mujoco.mj_name2id(model, KINDS[tracked.kind], tracked.name))
    if number < 0:
        raise ValueError(f"the model has no {tracked.kind} {tracked.name!r} to track: correct the task's `tracked`")
    if tracked.far_end:
        return _far_end(model, data, number)
    places = {"body": data.xpos, "site": data.site_xpos, "geom": data.geom_xpos}
    return np.array(places[tracked.kind][number])


def project(
    model: mujoco.MjModel, data: mujoco.MjData, places: Annotated[Array, "H 3"], camera: str
) -> Annotated[Array, "H 2"]:
    """Image coordinates in [0, 1] of world positions; NaN behind the camera."""
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
