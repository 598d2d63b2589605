"""Photometric augmentation of views: colour, blur and tone; drawn per image.

All map images `B T V 3 h w` in [0, 1] to images of the same shape, as part of an `Augmentation`.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional

from jepa_mpc.world_model.parts.augment import Change, _uniform

GREY = (0.299, 0.587, 0.114)
"""Luma weights of the colours (ITU-R BT.601)."""


class Sometimes:
    """Applies a change to a share of the images.

    Args:
        share: Share of the images.
        change: The change.

    Raises:
        ValueError: If the share is not from 0 to 1.
    """

    def __init__(self, share: float, change: Change) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"a share is from 0 to 1, got {share}")
        self.share, self.change = share, change

    def __call__(self, views: Tensor, generator: Generator) -> Tensor:
        """Images `B T V 3 h w` in and out."""
        chosen = _uniform(views.shape[:3], 0, 1, generator, views) < self.share
        return torch.where(chosen[..., None, None, None], self.change(views, generator), views)


class StandardJitter:
    """Brightness, contrast, saturation and hue, in this order.

    Args:
        brightness: Largest relative change of brightness.
        contrast: Largest relative change of contrast, around the mean brightness of the image.
        saturation: Largest relative change of saturation, around grey.
        hue: Largest rotation of the hue, as a share of the full circle.

    Reference: Howard 2013, arXiv:1312.5402; the hue is rotated in the plane of equal brightness (YIQ).
    """

    def __init__(
        self, *, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.2, hue: float = 0.1
    ) -> None:
        self.shares, self.hue = (brightness, contrast, saturation), hue

    def __call__(self, views: Tensor, generator: Generator) -> Tensor:
        """Images `B T V 3 h w` in and out."""
        each = (*views.shape[:3], 1, 1, 1)
        bright, contrast, colour = (1 + _uniform(each, -share, share, generator, views) for share in self.shares)
        views = (bright * views).clamp(0, 1)
        middle = grey(views).mean(dim=(-2, -1), keepdim=True)
        views = (middle + contrast * (views - middle)).clamp(0, 1)
        plain = grey(views)
        views = (plain + colour * (views - plain)).clamp(0, 1)
        turn = 2 * torch.pi * _uniform(views.shape[:3], -self.hue, self.hue, generator, views)
        return (_turn_of_hue(turn).to(views) @ views.flatten(-2)).unflatten(-1, views.shape[-2:]).clamp(0, 1)


class Grey:
    """Converts to grey levels."""

    def __call__(self, views: Tensor, generator: Generator) -> Tensor:
        """Images `B T V 3 h w` in and out."""
        return grey(views).expand_as(views)


class Blur:
    """Gaussian blur with a random width per image.

    Args:
        narrowest: Smallest standard deviation, px.
        widest: Largest.

    Raises:
        ValueError: If the widths are not positive and ascending.
    """

    def __init__(self, *, narrowest: float = 0.1, widest: float = 2.0) -> None:
        if not 0 < narrowest <= widest:
            raise ValueError(f"need 0 < narrowest <= widest in pixels, got {narrowest} and {widest}")
        self.narrowest, self.widest = narrowest, widest

    def __call__(self, views: Tensor, generator: Generator) -> Tensor:
        """Images `B T V 3 h w` in and out."""
        width = _uniform((views[..., 0, 0, 0].numel(), 1), self.narrowest, self.widest, generator, views)
        reach = min(int(3 * self.widest + 0.5), min(views.shape[-2:]) - 1)
        steps = torch.arange(-reach, reach + 1, device=views.device)
        kernel = functional.softmax(-0.5 * (steps / width).square(), dim=-1)  # (G, taps)
        pictures = views.flatten(0, 2).transpose(0, 1)  # (3, G, h, w): one group of channels per image
        down = functional.conv2d(
            functional.pad(pictures, (0, 0, reach, reach), mode="reflect"), kernel[:, None, :, None], groups=len(width)
        )
        across = functional.conv2d(
            functional.pad(down, (reach, reach, 0, 0), mode="reflect"), kernel[:, None, None, :], groups=len(width)
        )
        return across.transpose(0, 1).unflatten(0, views.shape[:3])


class Solarise:
    """Inverts bright pixels.

    Args:
        above: Brightness threshold, on the scale 0 to 1.
    """

    def __init__(self, *, above: float = 0.5) -> None:
        self.above = above

    def __call__(self, views: Tensor, generator: Generator) -> Tensor:
        """Images `B T V 3 h w` in and out."""
        return torch.where(views >= self.above, 1 - views, views)


def grey(views: Tensor) -> Tensor:
    """Brightness `... 1 h w` of images `... 3 h w`."""
    weights = torch.tensor(GREY, device=views.device, dtype=views.dtype)[:, None, None]
    return (weights * views).sum(dim=-3, keepdim=True)


def _turn_of_hue(angle: Tensor) -> Tensor:
    """Colour matrices `... 3 3` that rotate the two colour axes of YIQ by an angle `...`."""
    to_yiq = torch.tensor([GREY, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)], device=angle.device)
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    rows = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=-1).unflatten(-1, (3, 3))
    return to_yiq.inverse() @ rows @ to_yiq
