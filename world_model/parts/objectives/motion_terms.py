"""What MC-JEPA's motion branch asks of a flow: to rebuild pictures and features, to be smooth, to lead back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

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
"""Share of a picture that must pass the round trip before failing it counts as being hidden."""


@dataclass(frozen=True, kw_only=True)
class MotionWeights:
    """Weights of the terms of the motion branch.

    Args:
        l1: Absolute difference between a picture and the other one, warped.
        l2: Squared difference.
        ssim: Difference of local structure.
        coarse: The same three on pictures shrunk to each level of the pyramid, mean over the levels: a motion of many
            pixels is felt there, and not by windows of 3 pixels of the full picture.
        smooth: Roughness of the flow.
        regression: Squared difference of features, mean over the levels.
        cycle: Squared difference between features and themselves, warped there and back.
        spread: Variance-covariance regulariser, mean over the levels.
    """

    l1: float = 0.15
    l2: float = 0.0
    ssim: float = 0.85
    coarse: float = 0.0
    smooth: float = 0.1
    regression: float = 1.0
    cycle: float = 0.2
    spread: float = 1.0


class Relaxing(Protocol):
    """The weight of roughness over a training, as a share of what `MotionWeights` says."""

    def __call__(self, progress: Tensor) -> Tensor:
        """The share; `progress` runs from 0 to 1."""


@dataclass(frozen=True)
class Fading:
    """The weight falls all the way: end^progress.

    Args:
        end: Share that is left at the end.

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
class Dropping:
    """The whole weight, and a weaker one from some moment on: motion in the large first, then its edges.

    Args:
        at: Progress from which the weight is weaker; the rate should begin anew there (`schedules.Restarted`).
        to: Share that is left then.

    Raises:
        ValueError: If `at` is outside 0 to 1 or `to` is not above 0.
    """

    at: float
    to: float

    def __post_init__(self) -> None:
        if not 0 <= self.at <= 1 or self.to <= 0:
            raise ValueError(f"roughness drops at a progress from 0 to 1, to a share above 0, got {self.at}, {self.to}")

    def __call__(self, progress: Tensor) -> Tensor:
        """The share at this progress."""
        return torch.where(progress < self.at, 1.0, self.to)


@dataclass(frozen=True, kw_only=True)
class FramePairs:
    """Pairs of pictures in both orders: the second half of the batch holds the first half's pairs, turned round.

    Args:
        first: Pictures on the scale 0 to 1.
        second: The other picture of each pair.
        features_first: Their features, every level, the finest first.
        features_second: Those of the other pictures.
        flows: From first to second, one per level from `skip` on, each in its own cells.
        skip: Fine levels without a flow.
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
    """1 where a pixel stays in the picture and passes the round trip, or where too few of its picture pass.

    Args:
        flow: `B 2 h w`, the second half of the batch in the other order.
    """
    passes = consistent(flow, turned(flow))
    trusted = passes.mean(dim=(1, 2, 3), keepdim=True) >= TRUSTED
    return in_view(flow) * torch.where(trusted, passes, 1.0)


def turned(batch: Tensor) -> Tensor:
    """What belongs to the other order of each pair: the halves of the batch change places."""
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
    """Differences at the levels themselves, weighted as those of the full picture; 0 if it has no weight."""
    if not weights.coarse:
        return pairs.first.new_zeros(())
    terms = []
    for flow, mask in zip(pairs.flows, masks, strict=True):
        first, second = (_shrunk(picture, flow) for picture in (pairs.first, pairs.second))
        l1, l2, structure = _differences(warp(second, flow), first, mask)
        terms.append(weights.l1 * l1 + weights.l2 * l2 + weights.ssim * structure)
    return torch.stack(terms).mean()


def _differences(rebuilt: Tensor, picture: Tensor, mask: Mask) -> tuple[Tensor, Tensor, Tensor]:
    """Mean absolute and squared difference, and difference of structure, of the pixels that count."""
    gap = rebuilt - picture
    structure = dissimilarity(rebuilt, picture)
    return masked_mean(gap.abs(), mask), masked_mean(gap.square(), mask), masked_mean(structure, mask)


def _shrunk(picture: Tensor, flow: Flow) -> Tensor:
    """The picture on the grid of a flow, each cell the mean of its pixels."""
    return functional.adaptive_avg_pool2d(picture, (flow.shape[-2], flow.shape[-1]))


def _regression(pairs: FramePairs, masks: Sequence[Mask]) -> Tensor:
    """Squared difference of features and warped features, mean over the levels that have a flow."""
    terms = []
    for level, (flow, mask) in enumerate(zip(pairs.flows, masks, strict=True), start=pairs.skip):
        gap = (warp(pairs.features_second[level], flow) - pairs.features_first[level]).square()
        terms.append(masked_mean(gap, mask))
    return torch.stack(terms).mean()


def _cycle(pairs: FramePairs, mask: Mask) -> Tensor:
    """Squared difference between features and themselves after going there and back, at the finest flow."""
    there = pairs.features_second[pairs.skip]
    back = warp(warp(there, pairs.flows[0]), turned(pairs.flows[0]))
    return masked_mean((back - there).square(), turned(mask))


def _spread(features: Pyramid, spread: Regulariser, generator: Generator) -> Tensor:
    """The regulariser of every level, each place a sample; mean over the levels."""
    terms = [spread(level.permute(0, 2, 3, 1).flatten(0, 2), generator) for level in features]
    return torch.stack(terms).mean()
