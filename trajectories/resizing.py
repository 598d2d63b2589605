"""Resizes images to the training size, for logs and for a running robot: cropped or stretched, then area-averaged."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Aspect = Literal["crop", "stretch"]


@dataclass(frozen=True, kw_only=True)
class PictureFit:
    """How images are resized.

    Each pixel of a smaller image is the mean of the area that it covers; a larger image is interpolated linearly.

    Args:
        size: Width and height of the result, px; None leaves images unchanged.
        aspect: `crop` takes the largest centred square, `stretch` the whole image.

    Raises:
        ValueError: If the size is not positive or the aspect unknown.
    """

    size: int | None = None
    aspect: Aspect = "crop"

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ValueError(f"image_size must be a positive number of pixels or null, got {self.size}")
        if self.aspect not in ("crop", "stretch"):
            raise ValueError(f"aspect must be 'crop' or 'stretch', got {self.aspect!r}")

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result."""
        return (height, width) if self.size is None else (self.size, self.size)

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """Images `T h w 3` (uint8) in, `T size size 3` out; images of that size are returned unchanged."""
        height, width = pictures.shape[1:3]
        if self.shape(height, width) == (height, width):
            return pictures
        from PIL import Image

        assert self.size is not None
        side = min(height, width)
        wide, high = (side, side) if self.aspect == "crop" else (width, height)
        left, top = (width - wide) // 2, (height - high) // 2
        box = (left, top, left + wide, top + high)
        grows = self.size > wide or self.size > high
        how = Image.Resampling.BILINEAR if grows else Image.Resampling.BOX
        out = np.empty((len(pictures), self.size, self.size, 3), dtype=np.uint8)
        for at, picture in enumerate(pictures):
            out[at] = np.asarray(Image.fromarray(picture).resize((self.size, self.size), how, box=box))
        return out

    def to_dict(self) -> dict[str, Any]:
        """A JSON value for a cache or a checkpoint; `PictureFit(**value)` reads it."""
        return asdict(self)
