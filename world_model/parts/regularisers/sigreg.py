"""SIGReg: random projections of the latents should be standard normal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.processes import mean_over_processes, num_processes, same_everywhere


class SIGReg(nn.Module):
    """Epps-Pulley distance of random projections from a standard normal distribution.

        h = z u;   E(s) = (mean cos(s h) - w(s))^2 + (mean sin(s h))^2;   w(s) = exp(-s^2 / 2)
        SIGReg = mean over u of  G * integral of w(s) E(s) over [-span, span]     (trapezoid rule)

    Leading axes of the latents are separate sample sets and are averaged. Under torch.distributed the means run over
    the samples of all processes, whose directions are those of process 0; G is then the number of all samples.

    Args:
        num_directions: Random directions per call.
        num_knots: Points of the integration rule on [0, span].
        span: End of the integration range.
        chunk: Directions per batch, which bounds memory.

    Raises:
        ValueError: If a number is too small.

    Reference: Balestriero and LeCun 2025, arXiv:2511.08544; Maes et al. 2026, arXiv:2603.19312.
    """

    knots: Tensor
    weights: Tensor
    normal: Tensor

    def __init__(
        self, *, num_directions: int = 1024, num_knots: int = 17, span: float = 3.0, chunk: int = 1024
    ) -> None:
        super().__init__()
        if num_directions < 1 or num_knots < 2 or span <= 0 or chunk < 1:
            raise ValueError(
                "need num_directions >= 1, num_knots >= 2, span > 0 and chunk >= 1, got "
                f"{num_directions}, {num_knots}, {span}, {chunk}"
            )
        self.num_directions = num_directions
        self.chunk = chunk
        knots = torch.linspace(0, span, num_knots)
        spacing = torch.full((num_knots,), 2 * span / (num_knots - 1))  # doubled for the negative half axis
        spacing[[0, -1]] /= 2
        normal = torch.exp(-knots.square() / 2)
        self.register_buffer("knots", knots, persistent=False)
        self.register_buffer("normal", normal, persistent=False)
        self.register_buffer("weights", spacing * normal, persistent=False)

    def forward(self, latents: Annotated[Tensor, "... G D"], generator: Generator) -> Tensor:
        """The statistic of sample sets `(..., G, D)`, averaged over sets and fresh directions."""
        return self.along(latents, self.directions(latents, generator)).mean()

    def directions(self, latents: Tensor, generator: Generator) -> Annotated[Tensor, "D M"]:
        """Fresh random unit directions, one per column, equal on all processes."""
        size = (latents.shape[-1], self.num_directions)
        drawn = torch.randn(size, generator=generator, device=generator.device).to(latents.device)
        same_everywhere(drawn)
        return drawn / drawn.norm(dim=0)

    def along(self, latents: Annotated[Tensor, "... G D"], directions: Annotated[Tensor, "D M"]) -> Tensor:
        """The statistic `(..., M)` of each sample set along given unit directions."""
        samples = latents if latents.dtype == torch.float64 else latents.float()
        parts = directions.to(samples.dtype).split(self.chunk, dim=1)
        return torch.cat([self._statistic(samples @ part) for part in parts], dim=-1)

    def _statistic(self, projected: Annotated[Tensor, "... G M"]) -> Tensor:
        angles = projected.unsqueeze(-1) * self.knots  # (..., G, M, knots)
        cosine, sine = mean_over_processes(angles.cos().mean(dim=-3)), mean_over_processes(angles.sin().mean(dim=-3))
        gap = (cosine - self.normal).square() + sine.square()
        return num_processes() * projected.shape[-2] * (gap @ self.weights.to(gap.dtype))


class PooledOverTime(nn.Module):
    """Pools the samples of all time steps and tokens into one set.

    Args:
        regulariser: Applied to the one set `(1, G, D)`.
    """

    def __init__(self, regulariser: Callable[[Tensor, Generator], Tensor]) -> None:
        super().__init__()
        self.regulariser = regulariser

    def forward(self, latents: Annotated[Tensor, "... G D"], generator: Generator) -> Tensor:
        """A scalar for all sample sets together."""
        return self.regulariser(latents.flatten(0, -2)[None], generator)
