"""Terms of MC-JEPA's motion branch: reconstruction of images and features, smoothness, cycle consistency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor
from torch.nn import functional

from jepa_mpc.interfaces import Regulariser
from jepa_mpc.world_model.parts.flow import (
    Flow,
    Mask,
    consistent,
    dissimilarity,
    in_view,
    masked_mean,
    resize_flow,
    roughness,
    warp,
)

Pictures = Annotated[Tensor, "B 3 h w"]
Pyramid = Sequence[Tensor]
Terms = dict[str, tuple[float, Tensor]]

TRUSTED = 0.5
"""Minimum share of an image that must pass the round-trip check for failures to count as occlusions."""


@dataclass(frozen=True, kw_only=True)
class MotionWeights:
    """Weights of the terms of the motion branch.

    Args:
        l1: Absolute difference between an image and the other one, warped.
        l2: Squared difference.
        ssim: Structural dissimilarity.
        coarse: The same three on images downsampled to each level of the pyramid, averaged over the levels: captures
            motions of many pixels, unlike windows of 3 pixels at full resolution.
        smooth: Smoothness penalty of the flow.
        regression: Squared difference of features, averaged over the levels.
        cycle: Squared difference between features and themselves after a warped round trip.
        spread: Variance-covariance regulariser, averaged over the levels.
    """

    l1: float = 0.15
    l2: float = 0.0
    ssim: float = 0.85
    coarse: float = 0.0
    smooth: float = 0.1
    regression: float = 1.0
    cycle: float = 0.2
    spread: float = 1.0


@dataclass(frozen=True)
class Fading:
    """Schedule of the smoothness weight, as a share of that in `MotionWeights`: end^progress.

    Args:
        end: Share at the end.

    Raises:
        ValueError: If it is not above 0.
    """

    end: float

    def __post_init__(self) -> None:
        if self.end <= 0:
            raise ValueError(f"relax is a factor above 0, got {self.end}")

    def __call__(self, progress: Tensor) -> Tensor:
        """The share at this progress."""
        return self.end**progress


@dataclass(frozen=True, kw_only=True)
class FramePairs:
    """Image pairs in both directions: the second half of the batch holds the first half's pairs, swapped.

    Args:
        first: Images on the scale 0 to 1.
        second: The other image of each pair.
        features_first: Their features, every level, the finest first.
        features_second: Those of the other images.
        flows: From first to second, one per level from `skip` on, each in its own cells.
        skip: Number of fine levels without a flow.
    """

    first: Pictures
    second: Pictures
    features_first: Pyramid
    features_second: Pyramid
    flows: Sequence[Flow]
    skip: int


def motion_terms(pairs: FramePairs, weights: MotionWeights, spread: Regulariser, generator: Generator) -> Terms:
    """Weight and value of each term, and the share of pixels that count as visible."""
    masks = [visible(flow) for flow in pairs.flows]
    return {
        **_reconstruction(pairs, weights),
        "coarse": (weights.coarse, _coarse(pairs, masks, weights)),
        "regression": (weights.regression, _regression(pairs, masks)),
        "cycle": (weights.cycle, _cycle(pairs, masks[0])),
        "spread": (weights.spread, _spread(pairs.features_first, spread, generator)),
    }


@torch.no_grad()
def visible(flow: Flow) -> Mask:
    """1 where a pixel stays in the image and passes the round-trip check, or where too few of its image pass.

    Args:
        flow: `B 2 h w`, the second half of the batch in the other direction.
    """
    passes = consistent(flow, turned(flow))
    trusted = passes.mean(dim=(1, 2, 3), keepdim=True) >= TRUSTED
    return in_view(flow) * torch.where(trusted, passes, 1.0)


def turned(batch: Tensor) -> Tensor:
    """The other direction of each pair: swaps the halves of the batch."""
    forward, backward = batch.chunk(2)
    return torch.cat([backward, forward])


def _reconstruction(pairs: FramePairs, weights: MotionWeights) -> Terms:
    flow = resize_flow(pairs.flows[0], (pairs.first.shape[-2], pairs.first.shape[-1]))
    mask = visible(flow)
    l1, l2, structure = _differences(warp(pairs.second, flow), pairs.first, mask)
    return {
        "l1": (weights.l1, l1),
        "l2": (weights.l2, l2),
        "ssim": (weights.ssim, structure),
        "smooth": (weights.smooth, roughness(flow, pairs.first)),
        "visible": (0.0, mask.mean()),
    }


def _coarse(pairs: FramePairs, masks: Sequence[Mask], weights: MotionWeights) -> Tensor:
    """The differences at all levels, weighted as at full resolution; 0 if the weight is 0."""
    if not weights.coarse:
        return pairs.first.new_zeros(())
    terms = []
    for flow, mask in zip(pairs.flows, masks, strict=True):
        first, second = (_shrunk(picture, flow) for picture in (pairs.first, pairs.second))
        l1, l2, structure = _differences(warp(second, flow), first, mask)
        terms.append(weights.l1 * l1 + weights.l2 * l2 + weights.ssim * structure)
    return torch.stack(terms).mean()


def _differences(rebuilt: Tensor, picture: Tensor, mask: Mask) -> tuple[Tensor, Tensor, Tensor]:
    """Mean absolute difference, squared difference and structural dissimilarity over the valid pixels."""
    gap = rebuilt - picture
    structure = dissimilarity(rebuilt, picture)
    return masked_mean(gap.abs(), mask), masked_mean(gap.square(), mask), masked_mean(structure, mask)


def _shrunk(picture: Tensor, flow: Flow) -> Tensor:
    """The image downsampled to the grid of a flow by averaging."""
    return functional.adaptive_avg_pool2d(picture, (flow.shape[-2], flow.shape[-1]))


def _regression(pairs: FramePairs, masks: Sequence[Mask]) -> Tensor:
    """Squared difference of features and warped features, averaged over the levels with a flow."""
    terms = []
    for level, (flow, mask) in enumerate(zip(pairs.flows, masks, strict=True), start=pairs.skip):
        gap = (warp(pairs.features_second[level], flow) - pairs.features_first[level]).square()
        terms.append(masked_mean(gap, mask))
    return torch.stack(terms).mean()


def _cycle(pairs: FramePairs, mask: Mask) -> Tensor:
    """Squared difference between features and themselves after a round trip, at the finest flow."""
    there = pairs.features_second[pairs.skip]
    back = warp(warp(there, pairs.flows[0]), turned(pairs.flows[0]))
    return masked_mean((back - there).square(), turned(mask))


def _spread(features: Pyramid, spread: Regulariser, generator: Generator) -> Tensor:
    """The regulariser of every level, each position a sample; mean over the levels."""
    terms = [spread(level.permute(0, 2, 3, 1).flatten(0, 2), generator) for level in features]
    return torch.stack(terms).mean()
