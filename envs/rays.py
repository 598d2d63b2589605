"""Ray casting from a camera: the geom and depth of each pixel, exactly and without OpenGL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import mujoco
import numpy as np
from numpy.typing import NDArray

Points = Annotated[NDArray[np.float64], "h w 3"]

NOTHING = -1
NO_NORMALS: dict[str, None] = {"normal": None} if "normal:" in (mujoco.mj_multiRay.__doc__ or "") else {}
"""An argument of MuJoCo's ray caster since a release after 3.3."""


@dataclass(frozen=True)
class Pinhole:
    """A pinhole camera that looks along -z, with y up.

    Args:
        fovy_rad: Vertical field of view.
        size: Height and width in pixels.
    """

    fovy_rad: float
    size: tuple[int, int]

    @classmethod
    def of(cls, model: mujoco.MjModel, camera: int, size: int | tuple[int, int]) -> Pinhole:
        """That of a model's camera, for images of a height and width (one number for both).

        Raises:
            ValueError: If the camera is orthographic or has custom intrinsics.
        """
        check_perspective(model, camera)
        return cls(float(np.deg2rad(model.cam_fovy[camera])), (size, size) if isinstance(size, int) else size)

    @property
    def focal_px(self) -> float:
        """Focal length."""
        return float(self.size[0] / 2 / np.tan(self.fovy_rad / 2))

    def pixels(self) -> NDArray[np.float64]:
        """Column and row of each pixel `(h, w, 2)`."""
        rows, columns = np.indices(self.size)
        return np.stack([columns, rows], axis=-1).astype(np.float64)

    def rays(self) -> Points:
        """Directions through the pixel centres, with length one along the axis."""
        across = (self.pixels() - self._centre()) / self.focal_px
        return np.concatenate([across * [1, -1], -np.ones((*self.size, 1))], axis=-1)

    def project(self, points: Points) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Column and row of points in the camera frame, and whether they are in front of it."""
        depth = -points[..., 2:]
        ahead = depth[..., 0] > 1e-6
        at = self.focal_px * points[..., :2] * [1, -1] / np.where(depth > 1e-6, depth, 1.0)
        return at + self._centre(), ahead

    def _centre(self) -> NDArray[np.float64]:
        return (np.array(self.size)[::-1] - 1) / 2


def rotation_of(data: mujoco.MjData, camera: int) -> NDArray[np.float64]:
    """Axes of a camera in the world, as columns."""
    return data.cam_xmat[camera].reshape(3, 3)


def cast(
    model: mujoco.MjModel, data: mujoco.MjData, camera: int, rays: Points
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Length of each ray (in the camera frame) up to the first geom, infinite for none; and the geom."""
    count = rays.shape[0] * rays.shape[1]
    world = (rays @ rotation_of(data, camera).T).reshape(count, 3)
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
    """The groups of geoms that are rendered by default."""
    return np.asarray(mujoco.MjvOption().geomgroup, dtype=np.uint8)


def check_perspective(model: mujoco.MjModel, camera: int) -> None:
    """Refuse a camera that is not a plain pinhole.

    Raises:
        ValueError: If it is orthographic or has custom intrinsics.
    """
    field = "cam_projection" if hasattr(model, "cam_projection") else "cam_orthographic"  # renamed after MuJoCo 3.3
    if int(getattr(model, field)[camera]) or np.any(model.cam_sensorsize[camera] > 0):
        raise ValueError(
            f"camera {model.camera(camera).name!r} is orthographic or has intrinsics of its own: rays need a "
            "perspective camera given by fovy"
        )
