"""Signs of latent collapse: latents that no longer distinguish inputs.

No single number suffices. The rank does not detect shrinking, the standard deviation does not detect latents on a line,
and neither detects a large common offset; so all of them are monitored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.types import Latents

Samples = Annotated[Tensor, "G D"]


class LatentCollapse(ArithmeticError):
    """The latents have collapsed; the message names the sign."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """Collapse statistics of latents.

    Args:
        std: Mean standard deviation over the dimensions.
        std_ratio: Median over the dimensions of standard deviation / standard deviation at initialisation.
        dead_share: Share of the dimensions whose ratio is below the monitor's bound.
        effective_rank: exp(entropy of the eigenvalues of the covariance), between 1 and D.
        rankme: exp(entropy of the singular values of the raw latents) (Garrido et al. 2023, arXiv:2210.02885).
        cosine: Mean cosine between two latents; 1 if all are parallel.
        signs: Signs of collapse, in words; empty if there are none.
    """

    std: float
    std_ratio: float
    dead_share: float
    effective_rank: float
    rankme: float
    cosine: float
    signs: tuple[str, ...] = ()

    @property
    def collapsed(self) -> bool:
        """Whether there is any sign of collapse."""
        return bool(self.signs)

    def numbers(self) -> dict[str, float]:
        """The metrics for a log."""
        return {
            "std": self.std,
            "std_ratio": self.std_ratio,
            "dead_share": self.dead_share,
            "effective_rank": self.effective_rank,
            "rankme": self.rankme,
            "cosine": self.cosine,
            "collapsed": float(self.collapsed),
        }

    def raise_if_collapsed(self) -> None:
        """Stop a training whose latents have collapsed.

        Raises:
            LatentCollapse: If there is a sign of collapse.
        """
        if self.signs:
            raise LatentCollapse("the latents have collapsed: " + "; ".join(self.signs))


class CollapseMonitor:
    """Compares latents with those of the untrained encoder for the same inputs.

    Args:
        reference: Latents at initialisation, any shape `... D`.
        least_std_ratio: A dimension below this ratio is dead; collapse if half of them are dead.
        least_rank: Collapse below this effective rank (if D allows more).
        largest_cosine: Collapse above this mean cosine.
    """

    def __init__(
        self,
        reference: Latents,
        *,
        least_std_ratio: float = 0.1,
        least_rank: float = 1.5,
        largest_cosine: float = 0.999,
    ) -> None:
        self.reference_std = _samples(reference).std(dim=0).clamp_min(1e-12)
        self.least_std_ratio, self.least_rank, self.largest_cosine = least_std_ratio, least_rank, largest_cosine

    @torch.no_grad()
    def __call__(self, latents: Latents) -> Health:
        """Evaluate latents `... D`."""
        samples = _samples(latents)
        std = samples.std(dim=0)
        ratio = std / self.reference_std.to(std.device)
        health = {
            "std": float(std.mean()),
            "std_ratio": float(ratio.median()),
            "dead_share": float((ratio < self.least_std_ratio).float().mean()),
            "effective_rank": effective_rank(samples),
            "rankme": rankme(samples),
            "cosine": mean_cosine(samples),
        }
        return Health(**health, signs=self._signs(health, samples))

    def _signs(self, health: dict[str, float], samples: Samples) -> tuple[str, ...]:
        signs = []
        if not bool(torch.isfinite(samples).all()):
            signs.append("latents are not finite")
        if health["dead_share"] > 0.5:
            share = health["dead_share"]
            signs.append(
                f"{share:.0%} of the dimensions (more than 50%) keep less than {self.least_std_ratio:.0%} of their "
                "deviation"
            )
        if samples.shape[1] > 2 and health["effective_rank"] < self.least_rank:
            signs.append(
                f"effective rank {health['effective_rank']:.2f} of {samples.shape[1]} is below {self.least_rank:g}"
            )
        if samples.shape[1] > 1 and health["cosine"] > self.largest_cosine:
            signs.append(
                f"mean cosine {health['cosine']:.4f} is above {self.largest_cosine:g}: all latents point the same way"
            )
        return tuple(signs)


def effective_rank(samples: Samples) -> float:
    """exp(entropy) of the covariance's eigenvalues, as shares of their sum (Roy and Vetterli 2007, on variances)."""
    centred = samples - samples.mean(dim=0)
    return _exp_entropy(_singular_values(centred).square())


def rankme(samples: Samples) -> float:
    """exp(entropy) of the singular values, as shares of their sum (arXiv:2210.02885, eq. 1); invariant to scale."""
    return _exp_entropy(_singular_values(samples))


def mean_cosine(samples: Samples) -> float:
    """Mean cosine over all pairs of different samples."""
    unit = torch.nn.functional.normalize(samples, dim=1)
    count = len(unit)
    return float((unit.sum(dim=0).square().sum() - unit.square().sum()) / max(count * (count - 1), 1))


def _samples(latents: Tensor) -> Samples:
    """Latents `... D` as samples `G D` in float32."""
    samples = latents.detach().float().reshape(-1, latents.shape[-1])
    if len(samples) < 2:
        raise ValueError(f"need at least two samples to judge their spread, got shape {tuple(latents.shape)}")
    return samples


def _singular_values(samples: Samples) -> Tensor:
    """Singular values, NaN if a sample is not finite (the decomposition would fail)."""
    if not bool(torch.isfinite(samples).all()):
        return torch.full((1,), torch.nan)
    return torch.linalg.svdvals(samples)


def _exp_entropy(weights: Tensor) -> float:
    """exp(entropy) of weights as shares of their sum; 0 if the sum is 0."""
    if not bool(torch.isfinite(weights).all()):
        return float("nan")
    shares = weights.double() / weights.double().sum().clamp_min(1e-300)
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum())) if bool(weights.sum() > 0) else 0.0
