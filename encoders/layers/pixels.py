"""Normalisation of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class NormalisePixels(nn.Module):
    """Normalise grey levels 0..255.

        out = (x / 255 - mean) / std

    Args:
        mean: Mean of each colour channel on the scale 0..1; one number applies to all channels.
        std: Standard deviation of each colour channel, likewise.

    Raises:
        ValueError: If a standard deviation is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, mean: Sequence[float] = (0.45,), std: Sequence[float] = (0.25,)) -> None:
        super().__init__()
        if min(std) <= 0:
            raise ValueError(f"the std of the pixels must be positive, got {tuple(std)}")
        self.register_buffer("mean", 255 * torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Normalise frames `(..., C, h, w)` of any dtype with values 0..255; cameras share the colour constants."""
        cameras = frames.shape[-3] // self.mean.shape[0]
        return (frames.to(self.mean.dtype) - self.mean.repeat(cameras, 1, 1)) / self.std.repeat(cameras, 1, 1)


class ScenePixels(nn.Module):
    """Grey levels 0..255 relative to the mean image of a log, so that what moves in a still scene stands out.

        out = (x - scene) / spread

    Until `measure` is called, the scene is a plain grey.

    Args:
        size: Channels, height and width of the frames.
    """

    scene: Tensor
    spread: Tensor

    def __init__(self, *, size: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("scene", torch.full(tuple(size), 255 * 0.45))
        self.register_buffer("spread", torch.tensor(255 * 0.25))

    @torch.no_grad()
    def measure(self, frames: Tensor) -> None:
        """Take the scene, and the spread around it (at least one grey level), from frames `(G, C, h, w)`."""
        self.scene.copy_(frames.to(self.scene.dtype).mean(0))
        self.spread.copy_((frames - self.scene).square().mean().sqrt().clamp_min(1.0))

    def forward(self, frames: Tensor) -> Tensor:
        """Frames `(..., C, h, w)` of any dtype with values 0..255."""
        return (frames.to(self.scene.dtype) - self.scene) / self.spread
