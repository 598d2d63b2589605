"""Exact optical flow between two states of a simulation: what a perfect flow network would answer.

Rays through the pixel centres give depth and geom; the geom's change of pose moves the point that was hit; the camera
of the second state projects it again. No picture is drawn, so it works without OpenGL and is exact to numerical
precision (a rasteriser's tessellation and its depth buffer do not come in). Another ray, from the second camera to the
moved point, tells whether something stands before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import mujoco
import numpy as np
from numpy.typing import NDArray

Points = Annotated[NDArray[np.float64], "h w 3"]

NOTHING = -1
OCCLUSION = 0.02
"""A point is hidden where something stands nearer than it by more than this share of its depth."""
MOVING_PX = 0.25
"""Pixels that move by less than this through the motion of things do not count as moving."""
ROUNDING_PX = 1e-3
"""So far outside, a pixel at the border still counts as inside: it may have stood still."""
FAR_M = 1e6
"""Where the background is taken to be: far enough that only turning the camera moves it."""

NO_NORMALS: dict[str, None] = {"normal": None} if "normal:" in (mujoco.mj_multiRay.__doc__ or "") else {}
"""An argument that MuJoCo's ray caster has since a release after 3.3."""


@dataclass(frozen=True, kw_only=True)
class TrueFlow:
    """What happened to each pixel of the first picture.

    Args:
        flow: float32 `(2, h, w)`: pixels to the right, pixels down.
        valid: bool `(h, w)`, True where the same point is seen in the second picture too: inside it, and not hidden.
        moving: bool `(h, w)`, True where things moved the pixel, not the camera alone.
        depth_m: float32 `(h, w)`, distance along the camera's axis in the first state; infinite for the background.
        geom: int32 `(h, w)`, number of the geom in the first state; -1 for the background.
    """

    flow: NDArray[np.float32]
    valid: NDArray[np.bool_]
    moving: NDArray[np.bool_]
    depth_m: NDArray[np.float32]
    geom: NDArray[np.int32]


def exact_flow(
    model: mujoco.MjModel, before: mujoco.MjData, after: mujoco.MjData, *, camera: str, size: int | tuple[int, int]
) -> TrueFlow:
    """Flow from the picture of one state to that of another.

        p' = project(pose_after pose_before^-1 lift(p, depth));   flow = p' - p

    Camera and geoms may both have moved. Geoms of zero opacity are not there. Shadows and reflections are no matter of
    flow. Cameras of the plain kind (a vertical field of view, square pixels) are understood.

    Args:
        model: The model of both states (colours and sizes as they are now).
        before: First state, with up-to-date kinematics (`mj_forward`).
        after: Second state, likewise.
        camera: Name of a camera of the model.
        size: Height and width in pixels, or one number for both.

    Raises:
        ValueError: If the camera is orthographic or has intrinsics of its own.
    """
    number = model.camera(camera).id
    _check_camera(model, number)
    eye = _Eye(float(np.deg2rad(model.cam_fovy[number])), (size, size) if isinstance(size, int) else size)
    rays = eye.rays()
    depth, geom = _cast(model, before, number, rays)
    seen = np.where(np.isfinite(depth), depth, FAR_M)[..., None] * rays  # in the first camera's frame
    points = seen @ _rotation(before, number).T + before.cam_xpos[number]
    moved = _carry(points, geom, before, after)
    landing, ahead = eye.project((moved - after.cam_xpos[number]) @ _rotation(after, number))
    still, _ = eye.project((points - after.cam_xpos[number]) @ _rotation(after, number))
    last = np.array(eye.size)[::-1] - 1
    inside = ahead & np.all((landing >= -ROUNDING_PX) & (landing <= last + ROUNDING_PX), axis=-1)
    return TrueFlow(
        flow=np.ascontiguousarray((landing - eye.pixels()).transpose(2, 0, 1), dtype=np.float32),
        valid=inside & ~_hidden(model, after, number, moved),
        moving=np.linalg.norm(landing - still, axis=-1) > MOVING_PX,
        depth_m=depth.astype(np.float32),
        geom=geom,
    )


@dataclass(frozen=True)
class _Eye:
    """A pinhole: vertical field of view (rad), and height and width in pixels; looks along -z, y up."""

    fovy_rad: float
    size: tuple[int, int]

    @property
    def focal_px(self) -> float:
        return float(self.size[0] / 2 / np.tan(self.fovy_rad / 2))

    def pixels(self) -> NDArray[np.float64]:
        """Column and row of each pixel `(h, w, 2)`."""
        rows, columns = np.indices(self.size)
        return np.stack([columns, rows], axis=-1).astype(np.float64)

    def rays(self) -> Points:
        """Directions through the pixel centres, of length one along the axis."""
        across = (self.pixels() - self._centre()) / self.focal_px
        return np.concatenate([across * [1, -1], -np.ones((*self.size, 1))], axis=-1)

    def project(self, points: Points) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Column and row of points in the camera's frame, and whether they lie before it."""
        depth = -points[..., 2:]
        ahead = depth[..., 0] > 1e-6
        at = self.focal_px * points[..., :2] * [1, -1] / np.where(depth > 1e-6, depth, 1.0)
        return at + self._centre(), ahead

    def _centre(self) -> NDArray[np.float64]:
        return (np.array(self.size)[::-1] - 1) / 2


def _rotation(data: mujoco.MjData, camera: int) -> NDArray[np.float64]:
    return data.cam_xmat[camera].reshape(3, 3)


def _cast(
    model: mujoco.MjModel, data: mujoco.MjData, camera: int, rays: Points
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Share of each ray (in the camera's frame) after which it meets a geom, infinite for none; and the geom."""
    count = rays.shape[0] * rays.shape[1]
    world = (rays @ _rotation(data, camera).T).reshape(count, 3)
    lengths = np.linalg.norm(world, axis=1)
    geom, distance = np.full(count, NOTHING, np.int32), np.zeros(count)
    directions = np.ascontiguousarray(world / lengths[:, None]).ravel()
    mujoco.mj_multiRay(
        m=model, d=data, pnt=data.cam_xpos[camera], vec=directions, geomgroup=_drawn_groups(), flg_static=True,
        bodyexclude=NOTHING, geomid=geom, dist=distance, nray=count, cutoff=mujoco.mjMAXVAL, **NO_NORMALS,
    )  # fmt: skip
    share = np.where(geom == NOTHING, np.inf, distance / lengths)
    return share.reshape(rays.shape[:2]), geom.reshape(rays.shape[:2])


def _drawn_groups() -> NDArray[np.uint8]:
    """The groups of geoms that are drawn by default."""
    return np.asarray(mujoco.MjvOption().geomgroup, dtype=np.uint8)


def _carry(points: Points, geom: NDArray[np.int32], before: mujoco.MjData, after: mujoco.MjData) -> Points:
    """Points of the world, moved along with their geoms; the background stays."""
    at = np.maximum(geom, 0)
    turn_before, turn_after = (data.geom_xmat.reshape(-1, 3, 3)[at] for data in (before, after))
    own = np.einsum("...ji,...j->...i", turn_before, points - before.geom_xpos[at])  # in the geom's frame
    moved = np.einsum("...ij,...j->...i", turn_after, own) + after.geom_xpos[at]
    return np.where((geom == NOTHING)[..., None], points, moved)


def _hidden(model: mujoco.MjModel, data: mujoco.MjData, camera: int, points: Points) -> NDArray[np.bool_]:
    """Whether something stands between the camera and each point."""
    rays = (points - data.cam_xpos[camera]) @ _rotation(data, camera)
    nearest, _ = _cast(model, data, camera, rays)  # 1 where the ray ends at the point itself
    return nearest < 1 - OCCLUSION


def _check_camera(model: mujoco.MjModel, camera: int) -> None:
    field = "cam_projection" if hasattr(model, "cam_projection") else "cam_orthographic"  # renamed after MuJoCo 3.3
    if int(getattr(model, field)[camera]) or np.any(model.cam_sensorsize[camera] > 0):
        raise ValueError(
            f"camera {model.camera(camera).name!r} is orthographic or has intrinsics of its own: exact flow needs a "
            "perspective camera given by fovy"
        )
