"""PNG and JPEG bytes of a declared size."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.trajectories.formats.base import MAX_SIDE
from jepa_mpc.trajectories.guards import DECODER_ERRORS

STRIP = 64  # rows
SMALL = 1 << 20  # pixels
PLAIN, PROGRESSIVE = 7, 13  # bytes for a pixel while it is decoded
MOST_BYTES = 240 << 20
SCAN, MOST_SCANS = b"\xff\xda", 100  # a progressive JPEG has some ten; each decodes the whole image anew


def decode_picture(data: Any, shape: Sequence[int]) -> np.ndarray:
    """Decode to uint8 `h w 3`.

    Args:
        data: The bytes of a PNG or JPEG.
        shape: The expected size `h w 3`.

    Raises:
        BadEpisode: If the image is damaged or has another size.
    """
    with opened_picture(data) as image:
        if (image.height, image.width) != tuple(shape[:2]):
            raise BadEpisode(f"an image of {image.height} x {image.width} where {shape[0]} x {shape[1]} is declared")
        return pixels_of(image)


def pixels_of(image: Any) -> np.ndarray:
    """Pixels of an opened image, uint8 `h w 3`; a large one is read in strips, so that it is in memory once."""
    if image.height * image.width <= SMALL:
        return np.asarray(image.convert("RGB"))
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, STRIP):
        bottom = min(top + STRIP, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)).convert("RGB"))
    return pixels


def picture_size(data: Any) -> tuple[int, int, int]:
    """Size `h w 3` of an encoded image, from its header.

    Raises:
        BadEpisode: If it is damaged.
    """
    with opened_picture(data) as image:
        return (image.height, image.width, 3)


@contextmanager
def opened_picture(data: Any, formats: tuple[str, ...] = ("PNG", "JPEG")) -> Iterator[Any]:
    """Open an image and convert decoder errors to one type; only the named formats are tried.

    Raises:
        BadEpisode: If it is damaged, too large or of another format.
    """
    from PIL import Image

    expected = " or ".join(formats)
    if not isinstance(data, bytes):
        raise BadEpisode(f"a {type(data).__name__} where the bytes of a {expected} are expected")
    foreign = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            if max(image.size) > MAX_SIDE:
                raise BadEpisode(f"an image of {image.height} x {image.width}, expected at most {MAX_SIDE} px a side")
            held = PROGRESSIVE if image.info.get("progressive") else PLAIN
            if held * image.width * image.height > 2 * len(data) + MOST_BYTES:
                problem = f"an image of {image.height} x {image.width}, too large for a file of {len(data)} bytes"
                raise BadEpisode(problem)
            if image.format == "JPEG" and (scans := data.count(SCAN)) > MOST_SCANS:
                raise BadEpisode(f"a JPEG of {scans} scans, expected at most {MOST_SCANS}")
            yield image
    except BadEpisode:
        raise
    except (*foreign, *DECODER_ERRORS) as error:
        raise BadEpisode(f"no sound {expected}: {error}") from error


def encode_png(picture: np.ndarray) -> bytes:
    """Encode an image `h w 3` as PNG, without loss."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", compress_level=1)
    return file.getvalue()
