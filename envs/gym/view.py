"""Observations of a gymnasium environment for an agent: images of one size, and one row of numbers."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from jepa_mpc.envs.gym.course import Course
from jepa_mpc.envs.gym.moments import Moment
from jepa_mpc.envs.gym.states import Array
from jepa_mpc.errors import MissingPackage
from jepa_mpc.types import Observation

RENDER = "render"
"""Name of the one camera."""


class View:
    """Observes a course; each moment is rendered once.

    Args:
        course: The course.
        name: Name of the environment, for messages.
        cameras: ("render",), or none.
        image_size: Width and height of the frames in pixels.

    """

    def __init__(self, course: Course, *, name: str, cameras: tuple[str, ...], image_size: int) -> None:
        self.course, self.name, self.cameras, self.image_size = course, name, cameras, image_size
        self._nothing = np.zeros((0, image_size, image_size), np.uint8)
        self._last: tuple[Moment, NDArray[np.uint8]] | None = None

    def frames(self) -> NDArray[np.uint8]:
        """The current camera image `(3, size, size)`, or an empty one `(0, size, size)` without a camera.

        Raises:
            ValueError: If the environment does not render.
        """
        if not self.cameras:
            return self._nothing
        moment = self.course.moment
        if self._last is None or self._last[0] is not moment:
            picture = drawn(self.course.own, self.name)
            if picture is None:
                raise renders_nothing(self.name)
            self._last = moment, fitted(picture, self.image_size)
        return self._last[1]

    def observation(self, frames: NDArray[np.uint8] | None, row: Array) -> Observation:
        """Frames, if any, and the numeric observation, for an agent."""
        seen = self._nothing if frames is None or not self.cameras else frames
        return Observation(
            frames=torch.from_numpy(seen.copy())[None, None],
            cameras=self.cameras,
            proprio=torch.from_numpy(np.nan_to_num(row).astype(np.float32))[None, None],
        )

    def space(self, *, goal: bool) -> gymnasium.spaces.Dict:
        """The observation space: `proprio`, `frames` with a camera, and `goal` with a goal image."""
        picture = gymnasium.spaces.Box(0, 255, (3, self.image_size, self.image_size), np.uint8)
        row = gymnasium.spaces.Box(-np.inf, np.inf, self.course.moment.observation.shape, np.float32)
        shown = ["frames", *(["goal"] if goal else [])] if self.cameras else []
        return gymnasium.spaces.Dict({"proprio": row, **dict.fromkeys(shown, picture)})


def renders_nothing(name: str) -> ValueError:
    """The error of an environment without images where they are asked for."""
    return ValueError(f"{name} renders no images: make it with render_mode='rgb_array', or pass cameras=()")


def drawn(env: gymnasium.Env[Any, Any], name: str) -> NDArray[np.uint8] | None:
    """The environment's own image `(h, w, 3)`, None if it does not render.

    Raises:
        MissingPackage: If a package is missing.
    """
    try:
        picture = env.render()
    except gymnasium.error.DependencyNotInstalled as error:
        wanted = [package for package in ("pygame", "mujoco") if package in str(error)]
        raise MissingPackage(wanted[0] if wanted else "gymnasium[all]", name) from error
    return None if picture is None else np.array(picture, dtype=np.uint8)


def fitted(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The largest centred square of an image `(h, w, 3)` as a frame `(3, size, size)`.

    Raises:
        ValueError: If it is not an image.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"expected an image uint8 (h, w, 3), got {picture.dtype} {picture.shape}")
    high, wide = picture.shape[:2]
    side = min(high, wide)
    top, left = (high - side) // 2, (wide - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BOX, box=box)).transpose(2, 0, 1)
