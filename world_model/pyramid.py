"""Flow from coarse to fine: at each level of a pyramid, warp by what is known so far, compare, and correct.

Reference: Sun et al. 2018 (PWC-Net), arXiv:1709.02371; MC-JEPA (Bardes et al. 2023, arXiv:2307.12698) norms every layer
of the estimators but the last, and bounds what comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from encoders.pyramid import ChannelNorm
from world_model.flow import Flow, correlation, resize_flow, warp

FIRST_STEP = 0.1
"""Share of the usual size with which the last layer of an estimator begins: small corrections at first."""


class FlowEstimator(nn.Module):
    """Corrects a flow at one level: 3 x 3 convolutions over the fit of both maps, the first map, and the flow so far.

    Args:
        channels: Channels of the features.
        hidden: Channels of each layer.
        radius: Of the correlation, in cells.
    """

    def __init__(self, channels: int, *, hidden: Sequence[int], radius: int) -> None:
        super().__init__()
        self.radius = radius
        widths = ((2 * radius + 1) ** 2 + channels + 2, *hidden)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), ChannelNorm(outputs), nn.GELU())
                for inputs, outputs in pairwise(widths)
            )
        )
        self.last = nn.Conv2d(widths[-1], 2, 3, padding=1)
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Begin with small corrections."""
        with torch.no_grad():
            self.last.weight.mul_(FIRST_STEP)
            if self.last.bias is not None:
                self.last.bias.zero_()

    def forward(self, first: Tensor, warped: Tensor, flow: Flow) -> Flow:
        """The correction `B 2 h w`, in cells.

        Args:
            first: Features of the first picture `B C h w`.
            warped: Features of the second one, sampled where `flow` leads.
            flow: What is known so far, in cells.
        """
        fit = functional.gelu(correlation(first, warped, radius=self.radius) * first.shape[1] ** 0.5)
        return self.last(self.layers(torch.cat([fit, first, flow], dim=1)))


class PyramidFlow(nn.Module):
    """Two feature pyramids to a flow at each level, the coarsest first computed and the finest first given back.

    Features are layer-normed at every place before they are compared, so that the fit tells about patterns and not
    about brightness.

    Args:
        widths: Channels of the levels, the finest first.
        hidden: Channels of the estimators' layers.
        radii: Of the correlation at each level.
        skip: Levels at the fine end that are left out (the flow is then stretched).
        largest: Bound on the flow, in pixels of each level.

    Raises:
        ValueError: If radii and levels differ in number, or no level is left.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        hidden: Sequence[int],
        radii: Sequence[int],
        skip: int = 0,
        largest: float = 128.0,
    ) -> None:
        super().__init__()
        if len(widths) != len(radii) or not 0 <= skip < len(widths):
            raise ValueError(f"need a radius per level and a level left, got {widths}, {radii} and skip={skip}")
        self.skip, self.largest = skip, largest
        self.estimators = nn.ModuleList(
            FlowEstimator(width, hidden=hidden, radius=radius)
            for width, radius in list(zip(widths, radii, strict=True))[skip:]
        )

    def forward(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> list[Flow]:
        """Flows from the first to the second picture, one per level that is not skipped, each in its own cells.

        Args:
            first: Features `B C h w` of each level, the finest first.
            second: Those of the other picture.
        """
        flows: list[Flow] = []
        for level in reversed(range(len(self.estimators))):
            mine, other = (_normed(features[self.skip + level]) for features in (first, second))
            size = (mine.shape[-2], mine.shape[-1])
            known = resize_flow(flows[-1], size) if flows else mine.new_zeros(len(mine), 2, *size)
            better = known + self.estimators[level](mine, warp(other, known), known)
            flows.append(better.clamp(-self.largest, self.largest))
        return flows[::-1]


def _normed(features: Tensor) -> Tensor:
    """Features `B C h w` with zero mean and unit spread over the channels of each place."""
    centred = features - features.mean(dim=1, keepdim=True)
    return centred * (centred.square().mean(dim=1, keepdim=True) + 1e-5).rsqrt()
