"""Pictures of a gymnasium environment, brought to the size of the frames."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jepa_mpc.errors import MissingPackage


def drawn(env: gymnasium.Env[Any, Any], name: str) -> NDArray[np.uint8] | None:
    """The environment's own picture `(h, w, 3)`, None if it does not draw.

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
    """The largest centred square of a picture `(h, w, 3)` as a frame `(3, size, size)`.

    Raises:
        ValueError: If it is no picture.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"a picture is uint8 (h, w, 3), got {picture.dtype} {picture.shape}")
    high, wide = picture.shape[:2]
    side = min(high, wide)
    top, left = (high - side) // 2, (wide - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BOX, box=box)).transpose(2, 0, 1)
