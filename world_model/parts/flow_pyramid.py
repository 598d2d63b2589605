"""Flow from coarse to fine: at each level of a pyramid, warp by what is known so far, compare, and correct.

Reference: Sun et al. 2018 (PWC-Net), arXiv:1709.02371; MC-JEPA (Bardes et al. 2023, arXiv:2307.12698) norms every layer
of the estimators but the last, and bounds what comes out.
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
"""Share of the usual size with which the last layer of an estimator begins: small corrections at first."""
FIRST_TRUST = -1.0
"""What goes into the sigmoid of the trust at first."""
SHARPNESS = 60.0
"""How much the fit of a shift counts in the guess at first."""
FLAT = 0.1
"""Share of the usual square of a feature below which a place counts as flat: its features are not blown up."""


class FlowEstimator(nn.Module):
    """Corrects a flow at one level: 3 x 3 convolutions over the fit of both maps, the first map, and the flow so far.

        correction = trust * guess + residual;    guess = sum over shifts of softmax(sharpness * fit) * shift

    The guess is what the fit says by itself. It is right where there is texture, already with random features, and
    astray where there is none; trust and residual are what the convolutions learn.

    Args:
        channels: Channels of the features.
        hidden: Channels of each layer; layer i looks 2^i cells to each side, so that flat places hear of their
            neighbourhood.
        radius: Of the correlation, in cells.
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
        """Begin with small residuals and some trust."""
        with torch.no_grad():
            self.last.weight.mul_(FIRST_STEP)
            if self.last.bias is not None:
                self.last.bias.zero_()
                self.last.bias[2] = FIRST_TRUST

    def forward(self, first: Tensor, warped: Tensor, flow: Flow) -> Flow:
        """The correction `B 2 h w`, in cells.

        Args:
            first: Features of the first picture `B C h w`.
            warped: Features of the second one, sampled where `flow` leads.
            flow: What is known so far, in cells.
        """
        fit = correlation(first, warped, radius=self.radius)
        likely = (self.sharpness.exp() * fit).softmax(dim=1)  # (B, K, h, w)
        guess = torch.einsum("bkhw,ik->bihw", likely, self.shifts)
        told = self.last(self.layers(torch.cat([likely, guess, first, flow], dim=1)))
        return told[:, 2:].sigmoid() * guess + told[:, :2]


class PyramidFlow(nn.Module):
    """Two feature pyramids to a flow at each level, the coarsest first computed and the finest first given back.

    Before features are compared, their mean over the picture is taken away, and strong ones are brought to one size:
    the fit tells about patterns, not about brightness, and flat places fit nothing well.

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
    """Features `B C h w` about their mean over the picture; those of strong places have unit size."""
    centred = features - features.mean(dim=(2, 3), keepdim=True)
    centred = centred * (centred.square().mean(dim=(1, 2, 3), keepdim=True) + 1e-5).rsqrt()
    return centred * (centred.square().mean(dim=1, keepdim=True) + FLAT).rsqrt()
