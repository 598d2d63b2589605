"""VICReg's two regularising terms: each dimension keeps its variance, and dimensions are decorrelated."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.processes import mean_over_processes, num_processes


class VICReg(nn.Module):
    """Variance and covariance of samples.

        V = mean over dimensions of max(0, spread - sqrt(variance + eps))
        C = sum over pairs of dimensions of covariance^2 / D
        VICReg = variance_weight V + covariance_weight C

    Leading axes of the latents are separate sample sets and are averaged. Under torch.distributed means and covariances
    run over the samples of all processes.

    Args:
        variance_weight: Factor on V.
        covariance_weight: Factor on C.
        spread: Target standard deviation of each dimension.
        eps: Added to the variance.

    Raises:
        ValueError: If a number is out of range.

    Reference: Bardes et al. 2022, arXiv:2105.04906, eqs. 1 to 4.
    """

    def __init__(
        self,
        *,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        spread: float = 1.0,
        eps: float = 1e-4,
    ) -> None:
        super().__init__()
        if min(variance_weight, covariance_weight) < 0 or min(spread, eps) <= 0:
            raise ValueError(
                "need weights from 0, and spread and eps above 0, got "
                f"{variance_weight}, {covariance_weight}, {spread}, {eps}"
            )
        self.variance_weight, self.covariance_weight = variance_weight, covariance_weight
        self.spread, self.eps = spread, eps

    def forward(self, latents: Annotated[Tensor, "... G D"], generator: Generator) -> Tensor:
        """The cost of sample sets `(..., G, D)`, averaged over the sets; deterministic.

        Raises:
            ValueError: If there are fewer than two samples.
        """
        missing, shared = self.terms(latents)
        return self.variance_weight * missing + self.covariance_weight * shared

    def terms(self, latents: Annotated[Tensor, "... G D"]) -> tuple[Tensor, Tensor]:
        """V and C of sample sets `(..., G, D)`, without their weights, averaged over the sets.

        Raises:
            ValueError: If there are fewer than two samples.
        """
        count = latents.shape[-2] * num_processes()
        if count < 2:
            raise ValueError(f"variances need at least two samples, got latents of shape {tuple(latents.shape)}")
        samples = latents if latents.dtype == torch.float64 else latents.float()
        centred = samples - mean_over_processes(samples.mean(dim=-2, keepdim=True))
        local = centred.mT @ centred / latents.shape[-2]
        covariance = mean_over_processes(local) * (count / (count - 1))  # (..., D, D)
        variance = covariance.diagonal(dim1=-2, dim2=-1)
        missing = (self.spread - torch.sqrt(variance + self.eps)).clamp_min(0).mean()
        shared = (covariance.square().sum(dim=(-1, -2)) - variance.square().sum(dim=-1)).mean() / latents.shape[-1]
        return missing, shared
