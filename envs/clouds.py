"""Point clouds from depth images of a scene's cameras, in the base frame of the robot.

    p = axes (depth * ray) + eye            for every pixel that hits something; then cropped, and subsampled evenly

Depth comes from ray casting (`envs.rays`), so nothing is rendered and there is no depth-buffer rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from jepa_mpc.clouds import farthest_points
from jepa_mpc.envs.rays import NOTHING, Pinhole, cast, rotation_of
from jepa_mpc.errors import BadObservation

Depth = Annotated[NDArray[np.float32], "h w"]
Rows = Annotated[NDArray[np.float64], "G 3"]


@dataclass(frozen=True, kw_only=True)
class Crop:
    """The part of a scene that becomes points.

    Args:
        low: Lower corner of the box, in the base frame, m.
        high: Upper corner.
        leave_out: Names of excluded bodies, with their descendants: "table", "base" (the robot).

    Raises:
        ValueError: If the box is empty.
    """

    low: tuple[float, float, float] = (0.0, -0.6, -0.4)
    high: tuple[float, float, float] = (1.2, 0.6, 1.0)
    leave_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"the box to keep is empty: from {self.low} to {self.high} m")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Points seen by cameras, in the base frame.

    Args:
        points: float32 `G 3`, m.
        eyes: float32 `G 3`, position of the camera that sees each, m.
    """

    points: Annotated[NDArray[np.float32], "G 3"]
    eyes: Annotated[NDArray[np.float32], "G 3"]


def depth_image(
    model: mujoco.MjModel, data: mujoco.MjData, *, camera: str, size: int | tuple[int, int]
) -> tuple[Depth, Annotated[NDArray[np.int32], "h w"]]:
    """The image of a depth camera.

    Args:
        model: The model.
        data: Its state, with up-to-date kinematics.
        camera: Name of a camera.
        size: Height and width in pixels, or one number for both.

    Returns:
        Distance along the camera's axis, m, infinite for the background; and the index of the geom, -1 for none.

    Raises:
        ValueError: If the camera is orthographic or has custom intrinsics.
    """
    number = model.camera(camera).id
    depth, geom = cast(model, data, number, Pinhole.of(model, number, size).rays())
    return depth.astype(np.float32), geom


def backproject(depth_m: Depth, camera: Pinhole) -> Annotated[NDArray[np.float64], "h w 3"]:
    """The point seen by each pixel, in the camera frame (x right, y up, -z ahead), m; non-finite for the background."""
    return depth_m[..., None].astype(np.float64) * camera.rays()


class CloudSensor:
    """Depth cameras as one sensor: a cloud with a fixed number of points.

    Args:
        model: The model.
        cameras: Names of the cameras.
        size: Width and height of the depth images, px.
        points: Points per cloud. If fewer are visible, they are repeated in turn.
        crop: The part of the scene that becomes points.
        frame: Name of the site that defines the frame of the points.

    Raises:
        ValueError: If there is no camera, a number is not positive, or the model has no such body or site.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        *,
        cameras: Sequence[str],
        size: int = 64,
        points: int = 1024,
        crop: Crop | None = None,
        frame: str = "base",
    ) -> None:
        if not cameras or size < 1 or points < 1:
            raise ValueError(f"need cameras, pixels and points, got {tuple(cameras)}, {size} px, {points} points")
        self.model, self.cameras, self.size, self.points = model, tuple(cameras), size, points
        self.crop = crop or Crop()
        self.frame = _number(model, mujoco.mjtObj.mjOBJ_SITE, frame)
        left_out = [_number(model, mujoco.mjtObj.mjOBJ_BODY, name) for name in self.crop.leave_out]
        self.wanted = ~np.isin(_roots(model, left_out)[model.geom_bodyid], left_out)

    def __call__(self, data: mujoco.MjData) -> Annotated[NDArray[np.float32], "G 3"]:
        """The cloud of a state with up-to-date kinematics.

        Raises:
            BadObservation: If no camera sees a point of the crop.
        """
        return self.look(data).points

    def look(self, data: mujoco.MjData) -> Seen:
        """The cloud, and the position of the camera that sees each point.

        Raises:
            BadObservation: If no camera sees a point of the crop.
        """
        parts = [self._camera(data, camera) for camera in self.cameras]
        seen, eyes = (np.concatenate(part).astype(np.float32) for part in zip(*parts, strict=True))
        if not len(seen):
            raise BadObservation(
                f"no camera of {', '.join(self.cameras)} sees a point between {self.crop.low} and {self.crop.high} m "
                "in the frame of the base: widen the crop, or turn a camera"
            )
        few = len(seen) <= self.points
        at = np.arange(self.points) % len(seen) if few else farthest_points(seen, self.points)
        return Seen(points=seen[at], eyes=eyes[at])

    def _camera(self, data: mujoco.MjData, camera: str) -> tuple[Rows, Rows]:
        """Points that one camera sees inside the crop, and its own position for each."""
        number = self.model.camera(camera).id
        depth, geom = depth_image(self.model, data, camera=camera, size=self.size)
        wanted = (geom != NOTHING) & self.wanted[geom]
        own = backproject(depth, Pinhole.of(self.model, number, self.size))[wanted]
        axes, origin = data.site_xmat[self.frame].reshape(3, 3), data.site_xpos[self.frame]
        points = (own @ rotation_of(data, number).T + data.cam_xpos[number] - origin) @ axes
        inside = np.all((points >= self.crop.low) & (points <= self.crop.high), axis=1)
        eye = (data.cam_xpos[number] - origin) @ axes
        return points[inside], np.broadcast_to(eye, (int(inside.sum()), 3))


def normals(seen: Seen, *, neighbours: int = 12) -> Annotated[NDArray[np.float32], "G 3"]:
    """Unit surface normals: the direction of least spread of a point's neighbours, towards its camera.

    Args:
        seen: The points.
        neighbours: Points for fitting a plane, including the point itself, at least three.

    Raises:
        BadObservation: If there are fewer points than that.

    Reference: Hoppe et al. 1992, Surface Reconstruction from Unorganized Points, section 3.3.
    """
    if len(seen.points) < max(neighbours, 3) or neighbours < 3:
        raise BadObservation(f"normals need 3 neighbours or more, got {neighbours} of {len(seen.points)} points")
    _, near = cKDTree(seen.points).query(seen.points, k=neighbours)
    patches = seen.points[near].astype(np.float64)
    centred = patches - patches.mean(axis=1, keepdims=True)
    _, axes = np.linalg.eigh(np.einsum("gki,gkj->gij", centred, centred))
    direction = axes[..., 0]
    away = np.einsum("gi,gi->g", direction, seen.eyes - seen.points) < 0
    return np.where(away[:, None], -direction, direction).astype(np.float32)


def _number(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str) -> int:
    number = mujoco.mj_name2id(model, kind, name)
    if number < 0:
        what = {mujoco.mjtObj.mjOBJ_SITE: "site", mujoco.mjtObj.mjOBJ_BODY: "body"}[kind]
        raise ValueError(f"the model has no {what} {name!r}")
    return int(number)


def _roots(model: mujoco.MjModel, stems: Sequence[int]) -> NDArray[np.int64]:
    """The stem body that each body descends from, or the body itself."""
    roots = np.arange(model.nbody)
    for body in range(1, model.nbody):  # parents come first
        if body not in stems and roots[model.body_parentid[body]] in stems:
            roots[body] = roots[model.body_parentid[body]]
    return roots
