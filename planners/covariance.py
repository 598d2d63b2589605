"""Covariance matrix adaptation: a refit that learns correlations between the entries of a plan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from jepa_mpc.planners.refit import FEWEST_ELITES, Gaussian
from jepa_mpc.types import Costs, Plans

FARTHEST = 10.0  # plans further than this many standard deviations are shortened to it
SMALLEST = 1 / 32  # least standard deviation, in units in the last place (ulp) of the first one
FASTEST = 1.5  # largest growth factor of the overall standard deviation per round


@dataclass(frozen=True)
class Correlated(Gaussian):
    """A normal distribution over whole plans: deviations are std * (root @ noise), over the D = H A entries of a plan.

    Args:
        covariance: Covariance of the deviations in units of `std`, `B D D`; its mean variance is 1.
        root: Its lower Cholesky factor.
        path_c: Evolution path p_c: the smoothed path of the mean in units of `std`, `B D`.
        path_sigma: Conjugate evolution path p_sigma: the same, whitened so that random selection gives unit variance,
            `B D`.
        widest: Largest initial standard deviation, `B 1 1`.
        age: Rounds so far.
    """

    covariance: Annotated[Tensor, "B D D"]
    root: Annotated[Tensor, "B D D"]
    path_c: Annotated[Tensor, "B D"]
    path_sigma: Annotated[Tensor, "B D"]
    widest: Annotated[Tensor, "B 1 1"]
    age: int

    def around(self, noise: Plans) -> Plans:
        """Plans `B S H A` for standard noise of that shape."""
        mixed = noise.flatten(2) @ self.root.mT  # (B, S, D)
        return torch.addcmul(self.mean[:, None], self.std[:, None], mixed.view_as(noise))


class _Rates(NamedTuple):
    """Learning rates of each quantity, `B 1` each; `mu_eff` is the effective number of selected plans."""

    mu_eff: Tensor
    path_sigma: Tensor
    damping: Tensor
    path_c: Tensor
    rank_one: Tensor
    rank_many: Tensor
    length: Tensor


@dataclass(frozen=True, kw_only=True)
class CovarianceRefit:
    """Fit a normal distribution over whole plans; covariance and step size follow the path of the mean.

    Unlike a spread per entry, the covariance captures entries that compensate each other (pushing now or later). The
    mean moves to the log-rank-weighted mean of the cheaper plans. The covariance learns from these plans and from the
    path of the mean. The overall step size grows while the mean keeps its direction and shrinks while it turns. Where
    costs are not finite, proportionally fewer plans are selected; if none is finite, the distribution is unchanged.

    It learns best from many small rounds of about 4 + 3 ln(H A) plans, or a few times as many.

    Args:
        share: Fraction of a round that is selected, cheapest first.

    Reference: Hansen 2016, "The CMA evolution strategy: a tutorial", arXiv:1604.00772.
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"need 0 < share <= 1, got {self.share}")

    @property
    def min_samples(self) -> int:
        """The fewest plans from which a spread can be estimated."""
        return FEWEST_ELITES

    def __call__(self, old: Gaussian, plans: Plans, costs: Costs) -> Gaussian:
        """Plans B S H A and costs B S in; a distribution over B H A out."""
        before = old if isinstance(old, Correlated) else _uncorrelated(old)
        valid = costs.isfinite()
        weights = self._weights(costs, valid)
        deviations = torch.where(valid[:, :, None], _deviations(before, plans), 0.0)
        return _where(valid.any(dim=1), _moved(before, deviations, weights, valid), before)

    def _weights(self, costs: Costs, valid: Annotated[Tensor, "B S"]) -> Annotated[Tensor, "B S"]:
        """Log-rank weights that sum to 1; 0 for the plans that are not selected."""
        count = valid.sum(dim=1, keepdim=True)
        quota = (count * self.share).clamp(min=FEWEST_ELITES).minimum(count)  # (B, 1)
        rank = costs.argsort(dim=1).argsort(dim=1) + 1
        weights = ((quota + 0.5).log() - rank.log()).clamp(min=0) * valid
        return weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-9)


def _uncorrelated(old: Gaussian) -> Correlated:
    """The initial distribution with an identity covariance."""
    nothing = old.mean.flatten(1).new_zeros(old.mean.flatten(1).shape)
    alone = torch.eye(nothing.shape[1], dtype=nothing.dtype, device=nothing.device).expand(len(nothing), -1, -1)
    widest = torch.cat([old.std.flatten(1), nothing.new_zeros(len(nothing), 1)], dim=1).amax(dim=1)[:, None, None]
    return Correlated(old.mean, old.std, alone, alone, nothing, nothing, widest, 0)


def _deviations(before: Correlated, plans: Plans) -> Annotated[Tensor, "B S D"]:
    """Distance of plans from the mean in standard deviations; 0 on fixed entries."""
    std = before.std[:, None]
    apart = torch.where(std > 0, (plans - before.mean[:, None]) / torch.where(std > 0, std, 1.0), 0.0)
    farthest = FARTHEST * math.sqrt(max(1, before.mean[0].numel()))
    return apart.clamp(-farthest, farthest).flatten(2)


def _rates(weights: Annotated[Tensor, "B S"], before: Correlated) -> _Rates:
    """The standard rates for n free entries (reference, table 1)."""
    n = (before.std > 0).flatten(1).sum(dim=1, keepdim=True).clamp(min=1).to(weights.dtype)  # (B, 1)
    mu_eff = 1 / weights.square().sum(dim=1, keepdim=True).clamp(min=1e-9)
    path_sigma = (mu_eff + 2) / (n + mu_eff + 5)
    rank_one = 2 / ((n + 1.3) ** 2 + mu_eff)
    return _Rates(
        mu_eff=mu_eff,
        path_sigma=path_sigma,
        damping=1 + 2 * (((mu_eff - 1) / (n + 1)).clamp(min=0).sqrt() - 1).clamp(min=0) + path_sigma,
        path_c=(4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n),
        rank_one=rank_one,
        rank_many=torch.minimum(1 - rank_one, 2 * (mu_eff - 2 + 1 / mu_eff) / ((n + 2) ** 2 + mu_eff)).clamp(min=0),
        length=n.sqrt() * (1 - 1 / (4 * n) + 1 / (21 * n * n)),
    )


def _moved(
    before: Correlated,
    deviations: Annotated[Tensor, "B S D"],
    weights: Annotated[Tensor, "B S"],
    valid: Annotated[Tensor, "B S"],
) -> Correlated:
    """The distribution after one round."""
    rates = _rates(weights, before)
    step = (weights[:, None] @ deviations)[:, 0]  # (B, D)
    selection, usual = _selection(before, deviations, weights, valid)
    path_sigma = _smoothed(before.path_sigma, selection, rates.path_sigma, torch.ones_like(rates.mu_eff))
    length = path_sigma.norm(dim=1, keepdim=True)
    chance = (1 - (1 - rates.path_sigma) ** (2 * (before.age + 1))).sqrt() * usual
    steady = length < (1.4 + 2 / (rates.length**2 + 1)) * chance  # not after a jump in step size
    path_c = _smoothed(before.path_c, step * steady, rates.path_c, rates.mu_eff)
    covariance, root, scale = _learned(before, deviations, weights, path_c, rates)
    growth = (
        (rates.path_sigma / rates.damping * (length / usual.clamp(min=1e-9) - 1)).exp().clamp(max=FASTEST)[:, :, None]
    )
    std = before.std * growth * scale[:, :, None]
    least = SMALLEST * torch.finfo(std.dtype).eps * before.widest
    return Correlated(
        mean=before.mean + before.std * step.view_as(before.mean),
        std=torch.where(before.std > 0, torch.maximum(std, least), 0.0),
        covariance=covariance,
        root=root,
        path_c=path_c / scale,
        path_sigma=path_sigma,
        widest=before.widest,
        age=before.age + 1,
    )


def _selection(
    before: Correlated,
    deviations: Annotated[Tensor, "B S D"],
    weights: Annotated[Tensor, "B S"],
    valid: Annotated[Tensor, "B S"],
) -> tuple[Annotated[Tensor, "B D"], Annotated[Tensor, "B 1"]]:
    """The whitened step of the mean due to selection, and its expected length under random selection.

    Both use the plans before clipping: clipped plans are nearer and one-sided, which would bias the step size.
    """
    plain = torch.linalg.solve_triangular(before.root, deviations.mT, upper=False).mT  # (B, S, D)
    count = valid.sum(dim=1, keepdim=True).clamp(min=1)
    equal = valid / count
    usual = (equal * plain.square().sum(dim=-1)).sum(dim=1, keepdim=True).sqrt()
    return (weights[:, None] @ plain)[:, 0] / weights.square().sum(dim=1, keepdim=True).clamp(min=1e-9).sqrt(), usual


def _smoothed(path: Tensor, step: Tensor, rate: Tensor, mu_eff: Tensor) -> Tensor:
    """Exponential smoothing of a path of the mean at `rate`; keeps unit variance under random selection."""
    return (1 - rate) * path + (rate * (2 - rate) * mu_eff).sqrt() * step


def _learned(
    before: Correlated,
    deviations: Annotated[Tensor, "B S D"],
    weights: Annotated[Tensor, "B S"],
    path_c: Annotated[Tensor, "B D"],
    rates: _Rates,
) -> tuple[Tensor, Tensor, Annotated[Tensor, "B 1"]]:
    """Covariance with mean variance 1, its root, and the standard deviation that was divided out."""
    one, many = rates.rank_one[:, :, None], rates.rank_many[:, :, None]
    forgotten = (1 - one - many) * before.covariance
    fixed = (before.std == 0).flatten(1).to(path_c.dtype)
    learned = torch.baddbmm(forgotten, deviations.mT, deviations * (many * weights[:, :, None]))
    learned = learned + one * (path_c[:, :, None] * path_c[:, None]) + torch.diag_embed((one + many)[:, :, 0] * fixed)
    spread = learned.diagonal(dim1=1, dim2=2)
    variance = (spread.sum(dim=1, keepdim=True) / max(1, spread.shape[1])).clamp(min=1e-12)
    covariance = learned / variance[:, :, None]
    covariance = (covariance + covariance.mT) / 2
    root, failed = torch.linalg.cholesky_ex(covariance + 1e-6 * torch.eye(spread.shape[1]).to(covariance))
    sound = (failed == 0)[:, None, None]
    return (
        torch.where(sound, covariance, before.covariance),
        torch.where(sound, root, before.root),
        torch.where(sound[:, 0], variance.sqrt(), 1.0),
    )


def _where(some: Annotated[Tensor, "B"], new: Correlated, old: Correlated) -> Correlated:
    """The new distribution for worlds with valid plans, the old one for the others."""

    def pick(fresh: Tensor, stale: Tensor) -> Tensor:
        return torch.where(some.view(-1, *[1] * (fresh.dim() - 1)), fresh, stale)

    return Correlated(
        mean=pick(new.mean, old.mean),
        std=pick(new.std, old.std),
        covariance=pick(new.covariance, old.covariance),
        root=pick(new.root, old.root),
        path_c=pick(new.path_c, old.path_c),
        path_sigma=pick(new.path_sigma, old.path_sigma),
        widest=old.widest,
        age=new.age,
    )
