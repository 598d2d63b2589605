"""Image preprocessing of the V-JEPA 2 family: uint8 in, normalised squares out, with the authors' constants."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from jepa_mpc.encoders.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, NormalisePixels
from jepa_mpc.errors import BadObservation

Box = tuple[int, int, int, int]
"""Top, left, height, width."""

NUM_TRIES = 10
"""Random crops that are tried before the centre crop is used."""

SHORT_SIDE = (256, 224)
"""Short side of an image after resizing, for a crop of the second number."""


class EvaluationPixels(nn.Module):
    """Preprocessing for evaluation: resize the short side, crop the centre, normalise.

        short side = floor(256 / 224 crop), bilinear, rounded to whole grey levels

    Args:
        crop: Side of the result in pixels: 256 or 384 for the released encoders.
        antialias: Whether to antialias when downsizing, as for tensors; False matches numpy clips up to one grey level.
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
            BadObservation: If the frames are not uint8 images of three channels (or several cameras of three).
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
    """Preprocessing of V-JEPA 2-AC: crop the centre if the aspect ratio is out of range, resize to a square, normalise.

    Without antialiasing, so an image much larger than `size` is aliased, as in the authors' robot code.

    Args:
        size: Side of the result in pixels.
        ratio: Narrowest and widest aspect ratio (width / height) that is kept whole: (1, 1) in the published demo (a
            square), (0.75, 1.35) in the training on robot logs.
    """

    def __init__(self, size: int = 256, *, ratio: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__()
        low, high = ratio
        if not 0 < low <= high:
            raise ValueError(f"ratio must be the smallest and largest aspect ratio, got {tuple(ratio)}")
        self.size, self.ratio = size, (low, high)
        self.normalise = NormalisePixels(mean=IMAGENET_MEAN, std=IMAGENET_STD)

    def forward(self, frames: Tensor) -> Tensor:
        """Prepare frames.

        Args:
            frames: uint8 `(..., C, h, w)`.

        Returns:
            Floats `(..., C, size, size)`.

        Raises:
            BadObservation: If the frames are not uint8 images of three channels (or several cameras of three).
        """
        _check(frames)
        middle = _cut(frames, _central_box(frames.shape[-2], frames.shape[-1], self.ratio))
        return self.normalise(_resize(middle.float(), (self.size, self.size), antialias=False))


class TrainingPixels(nn.Module):
    """Preprocessing for pre-training: a random crop of the image, resized to a square, mirrored half the time.

    One crop for all frames of a clip. It has a random share of the area and a random aspect ratio (log-uniform); if ten
    draws do not fit into the image, the centre is used.

    Args:
        size: Side of the result in pixels.
        scale: Smallest and largest share of the image's area.
        ratio: Narrowest and widest aspect ratio (width / height).
        mirrored: Share of mirrored clips; use 0 for a robot that must distinguish left and right.
    """

    def __init__(
        self,
        size: int = 256,
        *,
        scale: tuple[float, float] = (0.3, 1.0),
        ratio: tuple[float, float] = (0.75, 1.35),
        mirrored: float = 0.5,
    ) -> None:
        super().__init__()
        if not (0 < scale[0] <= scale[1] and 0 < ratio[0] <= ratio[1] and 0 <= mirrored <= 1):
            raise ValueError(
                f"scale and ratio must be ascending and above 0, mirrored from 0 to 1, got {scale}, {ratio}, {mirrored}"
            )
        self.size, self.mirrored = size, mirrored
        self.scale, self.ratio = (scale[0], scale[1]), (ratio[0], ratio[1])
        self.normalise = NormalisePixels(mean=IMAGENET_MEAN, std=IMAGENET_STD)

    def forward(self, frames: Tensor, generator: Generator) -> Tensor:
        """Prepare clips.

        Args:
            frames: uint8 `(B, T, C, h, w)`.
            generator: Draws crops and mirrors.

        Returns:
            Floats `(B, T, C, size, size)`.

        Raises:
            BadObservation: If the frames are not uint8 clips of three channels (or several cameras of three).
        """
        _check(frames)
        clips = [self._vary(clip, generator) for clip in frames]
        return self.normalise(torch.stack(clips))

    def _vary(self, clip: Tensor, generator: Generator) -> Tensor:
        part = _cut(clip, self._box(clip.shape[-2], clip.shape[-1], generator)).float()
        resized = _resize(part, (self.size, self.size), antialias=False)
        mirror = torch.rand((), generator=generator, device=generator.device) < self.mirrored
        return resized.flip(-1) if bool(mirror) else resized

    def _box(self, height: int, width: int, generator: Generator) -> Box:
        low, high = (math.log(bound) for bound in self.ratio)
        for _ in range(NUM_TRIES):
            draw = torch.rand(4, generator=generator, device=generator.device).tolist()
            area = height * width * (self.scale[0] + draw[0] * (self.scale[1] - self.scale[0]))
            shape = math.exp(low + draw[1] * (high - low))
            inner_height, inner_width = round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
            if 0 < inner_height <= height and 0 < inner_width <= width:
                top, left = int(draw[2] * (height - inner_height + 1)), int(draw[3] * (width - inner_width + 1))
                return top, left, inner_height, inner_width
        return _central_box(height, width, self.ratio)


def _central_box(height: int, width: int, ratio: tuple[float, float]) -> Box:
    """The largest centre crop with an allowed aspect ratio."""
    low, high = ratio
    inner_height = round(width / low) if width < low * height else height
    inner_width = round(height * high) if width > high * height else width
    return (height - inner_height) // 2, (width - inner_width) // 2, inner_height, inner_width


def _cut(frames: Tensor, box: Box) -> Tensor:
    top, left, height, width = box
    return frames[..., top : top + height, left : left + width]


def _resize(frames: Tensor, size: tuple[int, int], *, antialias: bool) -> Tensor:
    flat = frames.reshape(-1, *frames.shape[-3:])
    resized = F.interpolate(flat, size=size, mode="bilinear", align_corners=False, antialias=antialias)
    return resized.reshape(*frames.shape[:-2], *size)


def _check(frames: Tensor) -> None:
    if frames.dtype != torch.uint8:
        raise BadObservation(f"expected uint8 images with values from 0 to 255, got {frames.dtype}")
    if frames.dim() < 3 or frames.shape[-3] % 3 or 0 in frames.shape:
        hint = " (channels last? move them before the height)" if frames.dim() > 2 and frames.shape[-1] == 3 else ""
        raise BadObservation(f"expected images (..., 3, h, w), got {tuple(frames.shape)}{hint}")
