"""Camera pictures as the V-JEPA 2 family was fed them: uint8 in, normalised squares out, the authors' numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import BadObservation
from encoders.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, NormalisePixels

SHORT_SIDE = (256, 224)
"""Short side of a picture after resizing, for a crop of the second number."""


class EvaluationPixels(nn.Module):
    """How features are evaluated: resize the short side, cut out the middle, normalise.

        short side = floor(256 / 224 crop), bilinear, rounded to whole grey levels

    Args:
        crop: Side of the result in pixels: 256 or 384 for the released encoders.
        antialias: Whether to filter when making smaller, as for tensors; False is what numpy clips went through, up to
            one grey level.
    """

    def __init__(self, crop: int = 256, *, antialias: bool = True) -> None:
        super().__init__()
        self.crop, self.antialias = crop, antialias
        self.normalise = NormalisePixels(mean=IMAGENET_MEAN, std=IMAGENET_STD)

    def forward(self, frames: Tensor) -> Tensor:
        """Prepare frames.

        Args:
            frames: uint8 `(..., C, h, w)`.

        Returns:
            Floats `(..., C, crop, crop)`.

        Raises:
            BadObservation: If the frames are not uint8 pictures of three channels (or several cameras of three).
        """
        _check(frames)
        height, width = frames.shape[-2:]
        short = int(self.crop * SHORT_SIDE[0] / SHORT_SIDE[1])
        long = int(short * max(height, width) / min(height, width))
        size = (short, long) if height <= width else (long, short)
        resized = frames if size == (height, width) else _resize(frames.float(), size, antialias=self.antialias).round()
        top, left = (round((side - self.crop) / 2) for side in size)
        return self.normalise(resized[..., top : top + self.crop, left : left + self.crop])


class RobotPixels(nn.Module):
    """How V-JEPA 2-AC sees: cut out the middle as far as its shape is too long, squeeze to a square, normalise.

    Without a filter, so a picture much larger than `size` keeps its jaggedness, as in the authors' robot code.

    Args:
        size: Side of the result in pixels.
        ratio: Narrowest and widest shape (width / height) that is kept whole: (1, 1) in the published demo (a square),
            (0.75, 1.35) in the training on robot logs, which squeezes.
    """

    def __init__(self, size: int = 256, *, ratio: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__()
        low, high = ratio
        if not 0 < low <= high:
            raise ValueError(f"ratio must be the narrowest and the widest shape, got {tuple(ratio)}")
        self.size, self.ratio = size, (low, high)
        self.normalise = NormalisePixels(mean=IMAGENET_MEAN, std=IMAGENET_STD)

    def forward(self, frames: Tensor) -> Tensor:
        """Prepare frames.

        Args:
            frames: uint8 `(..., C, h, w)`.

        Returns:
            Floats `(..., C, size, size)`.

        Raises:
            BadObservation: If the frames are not uint8 pictures of three channels (or several cameras of three).
        """
        _check(frames)
        height, width = frames.shape[-2:]
        low, high = self.ratio
        inner_height = round(width / low) if width < low * height else height
        inner_width = round(height * high) if width > high * height else width
        top, left = (height - inner_height) // 2, (width - inner_width) // 2
        middle = frames[..., top : top + inner_height, left : left + inner_width]
        return self.normalise(_resize(middle.float(), (self.size, self.size), antialias=False))


def _resize(frames: Tensor, size: tuple[int, int], *, antialias: bool) -> Tensor:
    flat = frames.reshape(-1, *frames.shape[-3:])
    resized = F.interpolate(flat, size=size, mode="bilinear", align_corners=False, antialias=antialias)
    return resized.reshape(*frames.shape[:-2], *size)


def _check(frames: Tensor) -> None:
    if frames.dtype != torch.uint8:
        raise BadObservation(f"expected uint8 pictures with values from 0 to 255, got {frames.dtype}")
    if frames.dim() < 3 or frames.shape[-3] % 3 or 0 in frames.shape:
        hint = " (channels last? move them before the height)" if frames.dim() > 2 and frames.shape[-1] == 3 else ""
        raise BadObservation(f"expected pictures (..., 3, h, w), got {tuple(frames.shape)}{hint}")
