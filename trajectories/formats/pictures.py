"""PNG and JPEG bytes of a declared size."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.trajectories.formats.base import MAX_SIDE


def decode_picture(data: Any, shape: Sequence[int]) -> np.ndarray:
    """Decode to uint8 `h w 3`.

    Args:
        data: The bytes.
        shape: The size `h w 3` that they must have.

    Raises:
        BadEpisode: If the picture has another size.
        OSError: If it is damaged (ValueError and SyntaxError may come, too).
    """
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        if max(image.size) > MAX_SIDE or (image.height, image.width) != tuple(shape[:2]):
            raise BadEpisode(f"a picture of {image.height} x {image.width} where {shape[0]} x {shape[1]} is declared")
        return np.asarray(image.convert("RGB"))


def picture_size(data: Any) -> tuple[int, int, int]:
    """Size `h w 3` of an encoded picture, from its header.

    Raises:
        OSError: If it is damaged (ValueError may come, too).
    """
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return (image.height, image.width, 3)


def encode_png(picture: np.ndarray) -> bytes:
    """A picture `h w 3` as PNG: every bit is kept."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", compress_level=1)
    return file.getvalue()
