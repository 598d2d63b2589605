"""Optical flow between two images: warping, consistency and losses.

A flow `B 2 h w` gives the displacement of every pixel p of the first image: (dx, dy) in pixels, columns first. Sampling
the second image at p + flow(p) reconstructs the first. Images are float `B C h w` on the scale 0 to 1.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

Flow = Annotated[Tensor, "B 2 h w"]
Mask = Annotated[Tensor, "B 1 h w"]

SSIM_MEANS, SSIM_SPREADS = 1e-4, 9e-4
"""The two constants of structural similarity, for images on the scale 0 to 1."""


def warp(second: Annotated[Tensor, "B C h w"], flow: Flow) -> Annotated[Tensor, "B C h w"]:
    """The second image sampled along the flow: out(p) = second(p + flow(p)), bilinear, borders repeated."""
    at = _landing(flow)
    last = at.new_tensor([max(flow.shape[-1] - 1, 1), max(flow.shape[-2] - 1, 1)])
    return functional.grid_sample(second, 2 * at / last - 1, mode="bilinear", padding_mode="border", align_corners=True)


def in_view(flow: Flow) -> Mask:
    """1 where the flow ends inside the image, else 0."""
    at = _landing(flow)
    last = at.new_tensor([flow.shape[-1] - 1, flow.shape[-2] - 1])
    return ((at >= 0) & (at <= last)).all(dim=-1, keepdim=False)[:, None].to(flow.dtype)


def round_trip(forward: Flow, backward: Flow) -> Annotated[Tensor, "B h w"]:
    """Squared round-trip error in pixels: |f(p) + b(p + f(p))|^2."""
    return (forward + warp(backward, forward)).square().sum(dim=1)


def consistent(forward: Flow, backward: Flow) -> Mask:
    """1 where the round trip ends near its start, else 0 (occlusion, or wrong flow).

        |f + warp(b, f)|^2 < 0.01 (|f|^2 + |warp(b, f)|^2) + 0.5

    Reference: Sundaram et al. 2010; Meister et al. 2018, arXiv:1711.07837.
    """
    back = warp(backward, forward)
    gap = (forward + back).square().sum(dim=1, keepdim=True)
    size = forward.square().sum(dim=1, keepdim=True) + back.square().sum(dim=1, keepdim=True)
    return (gap < 0.01 * size + 0.5).to(forward.dtype)


def dissimilarity(first: Tensor, second: Tensor) -> Annotated[Tensor, "B C h w"]:
    """Local structural dissimilarity of two images: (1 - SSIM) / 2 over windows of 3 x 3, from 0 to 1.

    Reference: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity".
    """
    mean_1, mean_2 = _window_mean(first), _window_mean(second)
    spread_1 = _window_mean(first.square()) - mean_1.square()
    spread_2 = _window_mean(second.square()) - mean_2.square()
    shared = _window_mean(first * second) - mean_1 * mean_2
    means = (2 * mean_1 * mean_2 + SSIM_MEANS) / (mean_1.square() + mean_2.square() + SSIM_MEANS)
    spreads = (2 * shared + SSIM_SPREADS) / (spread_1 + spread_2 + SSIM_SPREADS)
    return ((1 - means * spreads) / 2).clamp(0, 1)


def roughness(flow: Flow, picture: Tensor, *, edge: float = 10.0) -> Tensor:
    """Edge-aware smoothness penalty: mean difference of the flow between neighbours, reduced at image edges.

        mean |df/dx| exp(-edge |dI/dx|) + mean |df/dy| exp(-edge |dI/dy|)         |dI| averaged over the colours

    Args:
        flow: `B 2 h w`.
        picture: The image on whose pixels the flow is defined `B C h w`.
        edge: Strength of the reduction at edges.
    """
    total = flow.new_zeros(())
    for axis in (-1, -2):
        forgiven = torch.exp(-edge * _step(picture, axis).abs().mean(dim=1, keepdim=True))
        total = total + (forgiven * _step(flow, axis).abs()).mean()
    return total


def correlation(first: Tensor, second: Tensor, *, radius: int) -> Annotated[Tensor, "B K h w"]:
    """Correlation of each cell with the cells around the same position in the other map: channel mean of the product.

    Args:
        first: Features `B C h w`.
        second: Features of the other image `B C h w`; zero outside.
        radius: Search radius; K = (2 radius + 1)^2 shifts, rows outer, columns inner.
    """
    height, width = first.shape[-2:]
    around = functional.pad(second, (radius,) * 4)
    steps = range(2 * radius + 1)
    shifted = (around[..., dy : dy + height, dx : dx + width] for dy in steps for dx in steps)
    return torch.stack([(first * other).mean(dim=1) for other in shifted], dim=1)


def resize_flow(flow: Flow, size: tuple[int, int]) -> Flow:
    """The flow resized to another grid `(h, w)`, in pixels of that grid."""
    if flow.shape[-2:] == torch.Size(size):
        return flow
    scale = flow.new_tensor([size[1] / flow.shape[-1], size[0] / flow.shape[-2]])[:, None, None]
    return scale * functional.interpolate(flow, size=size, mode="bilinear", align_corners=False)


def end_point_error(flow: Flow, truth: Flow, mask: Mask | None = None) -> Tensor:
    """Mean end-point error of two flows, in pixels.

    Args:
        flow: `B 2 h w`.
        truth: `B 2 h w`.
        mask: Weight of each pixel `B 1 h w`; by default 1.
    """
    error = (flow - truth).norm(dim=1, keepdim=True)
    return error.mean() if mask is None else masked_mean(error, mask)


def masked_mean(x: Annotated[Tensor, "B C h w"], mask: Mask) -> Tensor:
    """Mean over the masked pixels and all channels; 0 for an empty mask."""
    return (x * mask).sum() / (mask.sum() * x.shape[1]).clamp_min(1e-6)


def _landing(flow: Flow) -> Annotated[Tensor, "B h w 2"]:
    """Column and row of each pixel's end point."""
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype)
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)
    return torch.stack([x + flow[:, 0], y[:, None] + flow[:, 1]], dim=-1)


def _window_mean(x: Tensor) -> Tensor:
    return functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="reflect"), 3, stride=1)


def _step(x: Tensor, axis: int) -> Tensor:
    return x.diff(dim=axis)
