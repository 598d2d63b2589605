"""Normality statistics that standardise each direction first, as in the public hierarchical JEPA.

They are invariant to scale and mean, so they do not prevent shrinking latents: `SIGReg` does.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.world_model.parts.regularisers.sigreg import SIGReg


class StandardisedSIGReg(SIGReg):
    """Epps-Pulley distance of each standardised projection from a normal distribution, not scaled by the samples.

        h = (z u - mean) / (std + 1e-6);   mean over u of  integral over [0, span] of w(s) E(s)

    Args:
        num_directions: Random directions per call.
        num_knots: Points of the integration rule.
        span: End of the integration range.
    """

    def __init__(self, *, num_directions: int = 1024, num_knots: int = 17, span: float = 4.0) -> None:
        super().__init__(num_directions=num_directions, num_knots=num_knots, span=span)

    def _statistic(self, projected: Annotated[Tensor, "... G M"]) -> Tensor:
        return super()._statistic(standardised(projected)) / (2 * projected.shape[-2])


class KernelNormality(nn.Module):
    """Distance of each standardised projection from fixed quantiles of a normal distribution, under a Gaussian kernel.

        mean k(h, h') - 2 mean k(h, q) + mean k(q, q'),   k(a, b) = exp(-(a - b)^2 / 2),   q: quantiles 0.01 to 0.99

    Args:
        num_directions: Random directions per call.
        num_points: Number of quantiles.
    """

    points: Tensor

    def __init__(self, *, num_directions: int = 1024, num_points: int = 17) -> None:
        super().__init__()
        self.draw_directions = SIGReg(num_directions=num_directions).directions
        quantiles = torch.linspace(0.01, 0.99, num_points)
        self.register_buffer("points", math.sqrt(2) * torch.erfinv(2 * quantiles - 1), persistent=False)

    def forward(self, latents: Annotated[Tensor, "G D"], generator: Generator) -> Tensor:
        """The statistic of samples `(G, D)`, averaged over fresh directions."""
        return self.along(latents, self.draw_directions(latents, generator)).mean()

    def along(self, latents: Annotated[Tensor, "G D"], directions: Annotated[Tensor, "D M"]) -> Tensor:
        """The statistic `(M)` along given unit directions."""
        samples = standardised(latents @ directions).T  # (M, G)
        own, cross = _kernel(samples, samples), _kernel(samples, self.points.expand(len(samples), -1))
        return own - 2 * cross + _kernel(self.points[None], self.points[None])


def standardised(projected: Annotated[Tensor, "... G M"]) -> Tensor:
    """Each column standardised to mean 0 and std 1."""
    centred = projected - projected.mean(dim=-2, keepdim=True)
    return centred / (projected.std(dim=-2, keepdim=True) + 1e-6)


def _kernel(first: Tensor, second: Tensor) -> Tensor:
    gaps = first[..., :, None] - second[..., None, :]
    return torch.exp(-gaps.square() / 2).mean(dim=(-1, -2))
