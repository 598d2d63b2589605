"""Coarse-to-fine flow: at each level of a pyramid, warp by the current flow, correlate, and correct.

Reference: Sun et al. 2018 (PWC-Net), arXiv:1709.02371; MC-JEPA (Bardes et al. 2023, arXiv:2307.12698) normalises every
layer of the estimators but the last, and bounds the output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.pyramid import ChannelNorm
from jepa_mpc.world_model.parts.flow import Flow, correlation, resize_flow, warp

FIRST_STEP = 0.1
"""Scale of the initial weights of an estimator's last layer: small corrections at first."""
FIRST_TRUST = -1.0
"""Initial logit of the trust."""
SHARPNESS = 60.0
"""Initial log sharpness of the softmax over shifts."""
FLAT = 0.1
"""Share of the mean squared feature below which a position counts as flat: its features are not amplified."""


class FlowEstimator(nn.Module):
    """Corrects a flow at one level: 3 x 3 convolutions over the correlation, the first map, and the current flow.

        correction = trust * guess + residual;    guess = sum over shifts of softmax(sharpness * fit) * shift

    The guess follows from the correlation alone. It is accurate on texture, even with random features, and wrong on
    flat regions; the convolutions learn trust and residual.

    Args:
        channels: Channels of the features.
        hidden: Channels of each layer; layer i has dilation 2^i, so that flat regions get context.
        radius: Radius of the correlation, in cells.
    """

    shifts: Tensor

    def __init__(self, channels: int, *, hidden: Sequence[int], radius: int) -> None:
        super().__init__()
        self.radius = radius
        widths = ((2 * radius + 1) ** 2 + channels + 4, *hidden)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(inputs, outputs, 3, padding=2**number, dilation=2**number),
                    ChannelNorm(outputs),
                    nn.GELU(),
                )
                for number, (inputs, outputs) in enumerate(pairwise(widths))
            )
        )
        self.last = nn.Conv2d(widths[-1], 3, 3, padding=1)
        self.sharpness = nn.Parameter(torch.tensor(math.log(SHARPNESS)))
        steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
        shifts = torch.stack([steps.repeat(len(steps)), steps.repeat_interleave(len(steps))])
        self.register_buffer("shifts", shifts, persistent=False)
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Initialise with small residuals and some trust."""
        with torch.no_grad():
            self.last.weight.mul_(FIRST_STEP)
            if self.last.bias is not None:
                self.last.bias.zero_()
                self.last.bias[2] = FIRST_TRUST

    def forward(self, first: Tensor, warped: Tensor, flow: Flow) -> Flow:
        """The correction `B 2 h w`, in cells.

        Args:
            first: Features of the first image `B C h w`.
            warped: Features of the second one, sampled along `flow`.
            flow: The current flow, in cells.
        """
        fit = correlation(first, warped, radius=self.radius)
        likely = (self.sharpness.exp() * fit).softmax(dim=1)  # (B, K, h, w)
        guess = torch.einsum("bkhw,ik->bihw", likely, self.shifts)
        told = self.last(self.layers(torch.cat([likely, guess, first, flow], dim=1)))
        return told[:, 2:].sigmoid() * guess + told[:, :2]


class PyramidFlow(nn.Module):
    """Two feature pyramids to a flow at each level; computed from the coarsest level, returned from the finest.

    Before features are compared, their mean over the image is subtracted, and strong ones are normalised: the
    correlation then reflects patterns, not brightness, and flat regions match nothing well.

    Args:
        widths: Channels of the levels, the finest first.
        hidden: Channels of the estimators' layers.
        radii: Radius of the correlation at each level.
        skip: Number of fine levels without an estimator (the flow is upsampled).
        largest: Bound on the flow, in pixels of each level.

    Raises:
        ValueError: If the numbers of radii and levels differ, or no level is left.
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
        """Flows from the first to the second image, one per level that is not skipped, each in its own cells.

        Args:
            first: Features `B C h w` of each level, the finest first.
            second: Those of the other image.
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
    """Features `B C h w` minus their mean over the image, normalised at strong positions."""
    centred = features - features.mean(dim=(2, 3), keepdim=True)
    centred = centred * (centred.square().mean(dim=(1, 2, 3), keepdim=True) + 1e-5).rsqrt()
    return centred * (centred.square().mean(dim=1, keepdim=True) + FLAT).rsqrt()
