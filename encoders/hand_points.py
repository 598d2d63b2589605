"""Hand keypoints per camera, detected from pairs of images, with their uncertainty.

    u = sum over pixels of softmax(heat) * (x, y);     v = sum over pixels of softmax(heat) * |(x, y) - u|^2

The camera is static, so two of its images differ by the arm: each image is evaluated together with another one of the
same camera.  Several heat maps have the same target and are averaged.  Each image is evaluated in several sizes: a
distant hand is detected in the large one, a near one in the small one, and sizes with sharper heat maps get higher
weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from jepa_mpc.encoders.convnet import CHANNELS_PER_CAMERA, KeypointTrunk, standardised

SURELY = 1e-4
"""Spread below which all sizes are equally sharp."""


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """Detected hand keypoints.

    Args:
        at: Keypoints `(B, V, 2)` in [-1, 1], x right and y down, for V cameras.
        spread: Squared spread of the heat map around each `(B, V)`.
    """

    at: Tensor
    spread: Tensor


class HandPoints(nn.Module):
    """Pairs of images to keypoints.

    Args:
        widths: Channels of the trunk at 1/2, 1/4, 1/8 and 1/16 of the resolution.
        points: Number of heat maps K.
    """

    def __init__(self, *, widths: Sequence[int] = (16, 32, 64, 96), points: int = 4) -> None:
        super().__init__()
        self.trunk = KeypointTrunk(widths=widths, keypoints=points, channels=2 * CHANNELS_PER_CAMERA)

    def forward(self, views: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Hand keypoints in images `B 3 h w`: points `B K 2` and their heat maps `B K h/4 w/4`.

        Args:
            views: The images, of any scale.
            others: Another image of the same camera for each, of the same scale.

        Raises:
            ValueError: If they are not colour images, or their numbers differ.
        """
        if views.dim() != 4 or views.shape[1] != CHANNELS_PER_CAMERA or others.shape != views.shape:
            raise ValueError(f"expected images (B, 3, h, w) twice, got {tuple(views.shape)}, {tuple(others.shape)}")
        here, there = standardised(torch.cat([views, others], dim=-1)).chunk(2, dim=-1)
        heat, _ = self.trunk.look(torch.cat([here, here - there], dim=1))
        return self.trunk.points(heat), heat

    @torch.no_grad()
    def find(self, frames: Tensor, others: Tensor, *, sizes: Sequence[int]) -> Sighting:
        """Detect the hand in frames `B C h w` with values 0..255, in each of the sizes (px).

        Args:
            frames: Frames of all cameras, stacked.
            others: Other frames of the same cameras.
            sizes: Image sizes for detection (px).

        Raises:
            ValueError: If the number of channels is not a multiple of three, or the shapes differ.
        """
        if frames.dim() != 4 or frames.shape[1] % CHANNELS_PER_CAMERA or others.shape != frames.shape:
            raise ValueError(f"expected frames (B, 3 V, h, w) twice, got {tuple(frames.shape)}, {tuple(others.shape)}")
        apart = (-1, CHANNELS_PER_CAMERA)
        views, beside = (each.float().unflatten(1, apart).flatten(0, 1) / 255 for each in (frames, others))
        cameras = (len(frames), -1)
        points, spreads = [], []
        for size in sizes:
            points_of, heat = self(resized(views, size), resized(beside, size))
            points.append(points_of.mean(dim=1).unflatten(0, cameras))
            spreads.append(_scatter(points_of, heat).mean(dim=1).unflatten(0, cameras))
        spread = torch.stack(spreads)
        share = (spread + SURELY).square().reciprocal()
        share = share / share.sum(dim=0)
        return Sighting(at=(share[..., None] * torch.stack(points)).sum(dim=0), spread=(share * spread).sum(dim=0))


def resized(pictures: Tensor, size: int) -> Tensor:
    """Square images `B C h h` resized, averaged where they shrink."""
    if pictures.shape[-1] == size:
        return pictures
    if pictures.shape[-1] > size:
        return functional.interpolate(pictures, size=(size, size), mode="area")
    return functional.interpolate(pictures, size=(size, size), mode="bilinear", align_corners=False)


def _scatter(points: Tensor, heat: Tensor) -> Tensor:
    mass = heat.flatten(2).softmax(-1).unflatten(2, heat.shape[-2:])
    down = torch.linspace(-1, 1, heat.shape[-2], device=heat.device)
    right = torch.linspace(-1, 1, heat.shape[-1], device=heat.device)
    across = (mass.sum(-2) * (right - points[..., :1]).square()).sum(-1)
    return across + (mass.sum(-1) * (down - points[..., 1:]).square()).sum(-1)
