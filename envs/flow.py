"""Exact optical flow between two states of a simulation.

Rays through the pixel centres give depth and geom; the geom's change of pose moves the hit point; the camera of the
second state projects it. Nothing is rendered, so it works without OpenGL and is exact to numerical precision (no
tessellation or depth-buffer error). Another ray, from the second camera to the moved point, tests for occlusion.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.rays import NOTHING, Pinhole, Points, cast, check_perspective, rotation_of

OCCLUSION = 0.02
"""A point is occluded if something is nearer than it by more than this share of its depth."""
MOVING_PX = 0.25
"""Pixels moved by less than this through object motion do not count as moving."""
ROUNDING_PX = 1e-3
"""Tolerance at the border: such pixels still count as inside, as they may be static."""
FAR_M = 1e6
"""Distance of the background: large enough that only camera rotation moves it."""


@dataclass(frozen=True, kw_only=True)
class TrueFlow:
    """The motion of each pixel of the first image.

    Args:
        flow: float32 `(2, h, w)`: pixels to the right, pixels down.
        valid: bool `(h, w)`, True where the same point is visible in the second image: inside it, and not occluded.
        moving: bool `(h, w)`, True where object motion moved the pixel, not only the camera.
        depth_m: float32 `(h, w)`, distance along the camera's axis in the first state; infinite for the background.
        geom: int32 `(h, w)`, index of the geom in the first state; -1 for the background.
    """

    flow: NDArray[np.float32]
    valid: NDArray[np.bool_]
    moving: NDArray[np.bool_]
    depth_m: NDArray[np.float32]
    geom: NDArray[np.int32]


def exact_flow(
    model: mujoco.MjModel, before: mujoco.MjData, after: mujoco.MjData, *, camera: str, size: int | tuple[int, int]
) -> TrueFlow:
    """Flow from the image of one state to that of another.

        p' = project(pose_after pose_before^-1 lift(p, depth));   flow = p' - p

    Camera and geoms may both move. Geoms with zero opacity are ignored, as are shadows and reflections. Only
    perspective cameras are supported (a vertical field of view, square pixels).

    Args:
        model: The model of both states (colours and sizes as they are now).
        before: First state, with up-to-date kinematics (`mj_forward`).
        after: Second state, likewise.
        camera: Name of a camera of the model.
        size: Height and width in pixels, or one number for both.

    Raises:
        ValueError: If the camera is orthographic or has custom intrinsics.
    """
    number = model.camera(camera).id
    check_perspective(model, number)
    eye = Pinhole.of(model, number, size)
    rays = eye.rays()
    depth, geom = cast(model, before, number, rays)
    seen = np.where(np.isfinite(depth), depth, FAR_M)[..., None] * rays  # in the first camera's frame
    points = seen @ rotation_of(before, number).T + before.cam_xpos[number]
    moved = _carry(points, geom, before, after)
    landing, ahead = eye.project((moved - after.cam_xpos[number]) @ rotation_of(after, number))
    still, _ = eye.project((points - after.cam_xpos[number]) @ rotation_of(after, number))
    last = np.array(eye.size)[::-1] - 1
    inside = ahead & np.all((landing >= -ROUNDING_PX) & (landing <= last + ROUNDING_PX), axis=-1)
    return TrueFlow(
        flow=np.ascontiguousarray((landing - eye.pixels()).transpose(2, 0, 1), dtype=np.float32),
        valid=inside & ~_hidden(model, after, number, moved),
        moving=np.linalg.norm(landing - still, axis=-1) > MOVING_PX,
        depth_m=depth.astype(np.float32),
        geom=geom,
    )


def _carry(points: Points, geom: NDArray[np.int32], before: mujoco.MjData, after: mujoco.MjData) -> Points:
    """World points moved along with their geoms; the background is static."""
    at = np.maximum(geom, 0)
    turn_before, turn_after = (data.geom_xmat.reshape(-1, 3, 3)[at] for data in (before, after))
    own = np.einsum("...ji,...j->...i", turn_before, points - before.geom_xpos[at])  # in the geom's frame
    moved = np.einsum("...ij,...j->...i", turn_after, own) + after.geom_xpos[at]
    return np.where((geom == NOTHING)[..., None], points, moved)


def _hidden(model: mujoco.MjModel, data: mujoco.MjData, camera: int, points: Points) -> NDArray[np.bool_]:
    """Whether something occludes each point from the camera."""
    rays = (points - data.cam_xpos[camera]) @ rotation_of(data, camera)
    nearest, _ = cast(model, data, camera, rays)  # 1 where the ray ends at the point itself
    return nearest < 1 - OCCLUSION
