"""How a sampling planner learns from a scored round: the next Gaussian from the plans and their costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Tensor

from core.types import Costs, Plan, Plans

FEWEST_ELITES = 5  # fewer say too little about the spread (tried 2, 3, 5, 8 and a third, with 90 and 97 % invalid)


@dataclass(frozen=True)
class Gaussian:
    """Independent normal distributions over the entries of a plan: mean and standard deviation `B H A`."""

    mean: Plan
    std: Plan


class Refit(Protocol):
    """Fits the next distribution to a scored round; costs of invalid plans arrive as +inf."""

    @property
    def min_samples(self) -> int:
        """Fewest plans per round that it can work with."""

    def __call__(self, old: Gaussian, plans: Plans, costs: Costs) -> Gaussian:
        """Plans B S H A and costs B S in; a Gaussian over B H A out."""


@dataclass(frozen=True, kw_only=True)
class EliteRefit:
    """Fit the next Gaussian to the cheapest plans (cross-entropy method).

    Where costs are not finite, the number of elites shrinks in proportion, so that the selection stays as sharp as on
    a clean round, but not below five while as many are valid; without a valid plan the Gaussian stays.

    Args:
        num_elites: Plans that are fitted (E).
        momentum: Share of the old mean and std that is kept.
        correction: 1 for the unbiased standard deviation, 0 for the maximum-likelihood one.

    Reference: Rubinstein 1999, "The cross-entropy method for combinatorial and continuous optimization".
    """

    num_elites: int
    momentum: float = 0.0
    correction: int = 0

    def __post_init__(self) -> None:
        if self.num_elites < 1 or not 0 <= self.momentum < 1:
            raise ValueError(f"need num_elites >= 1 and 0 <= momentum < 1, got {self.num_elites} and {self.momentum}")

    @property
    def min_samples(self) -> int:
        """As many plans as there are elites."""
        return self.num_elites

    def __call__(self, old: Gaussian, plans: Plans, costs: Costs) -> Gaussian:
        """Plans B S H A and costs B S in; a Gaussian over B H A out."""
        elite_costs, elites = cheapest(plans, costs, self.num_elites)  # (B, E), (B, E, H, A)
        used = self._used(elite_costs, costs)
        mean, std = _moments(elites, used, self.correction)
        some, several = (used.sum(dim=1) > least for least in (0, 1))
        mean = torch.where(some[:, None, None], mean, old.mean)
        std = torch.where(several[:, None, None], std, old.std)
        keep = self.momentum
        return Gaussian(keep * old.mean + (1 - keep) * mean, keep * old.std + (1 - keep) * std)

    def _used(self, elite_costs: Annotated[Tensor, "B E"], costs: Costs) -> Annotated[Tensor, "B E"]:
        """Which elites count: valid, and no larger a share of the valid plans than on a clean round."""
        share = costs.isfinite().sum(dim=1, keepdim=True) * self.num_elites / costs.shape[1]
        quota = share.ceil().clamp(min=FEWEST_ELITES)  # (B, 1)
        rank = torch.arange(self.num_elites, device=costs.device)
        return elite_costs.isfinite() & (rank < quota)


@dataclass(frozen=True, kw_only=True)
class SoftmaxRefit:
    """Move the mean to the average of the cheapest plans, weighted by exp(-(cost - least) / temperature) (MPPI).

    The standard deviation stays as it is.

    Args:
        temperature: In the unit of the cost; small values follow the best plan alone.
        num_elites: Plans that are averaged, or None for all of them.

    Reference: Williams et al. 2017, arXiv:1707.02342.
    """

    temperature: float
    num_elites: int | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0 or (self.num_elites is not None and self.num_elites < 1):
            raise ValueError(f"need temperature > 0 and num_elites >= 1, got {self.temperature} and {self.num_elites}")

    @property
    def min_samples(self) -> int:
        """As many plans as there are elites."""
        return self.num_elites or 1

    def __call__(self, old: Gaussian, plans: Plans, costs: Costs) -> Gaussian:
        """Plans B S H A and costs B S in; a Gaussian over B H A out."""
        elite_costs, elites = cheapest(plans, costs, self.num_elites or plans.shape[1])
        valid = elite_costs.isfinite()
        least = torch.where(valid[:, :1], elite_costs[:, :1], 0.0)
        weights = torch.where(valid, (-(elite_costs - least) / self.temperature).exp(), 0.0).to(plans.dtype)
        total = weights.sum(dim=1)[:, None, None]
        mean = (weights[:, :, None, None] * elites).sum(dim=1) / total.clamp(min=torch.finfo(plans.dtype).tiny)
        return Gaussian(torch.where(total > 0, mean, old.mean), old.std)


@dataclass(frozen=True)
class BestRefit:
    """Move the mean to the cheapest plan and keep the spread (random shooting, round after round)."""

    @property
    def min_samples(self) -> int:
        """One plan is enough."""
        return 1

    def __call__(self, old: Gaussian, plans: Plans, costs: Costs) -> Gaussian:
        """Plans B S H A and costs B S in; a Gaussian over B H A out."""
        cost, best = cheapest(plans, costs, 1)
        return Gaussian(torch.where(cost[:, :, None].isfinite(), best[:, 0], old.mean), old.std)


def cheapest(plans: Plans, costs: Costs, count: int) -> tuple[Annotated[Tensor, "B E"], Annotated[Tensor, "B E H A"]]:
    """The `count` cheapest plans of each world, best first, with their costs."""
    found = costs.topk(count, dim=1, largest=False)
    index = found.indices[:, :, None, None].expand(-1, -1, *plans.shape[2:])
    return found.values, plans.gather(1, index)


def _moments(
    elites: Annotated[Tensor, "B E H A"], used: Annotated[Tensor, "B E"], correction: int
) -> tuple[Plan, Plan]:
    """Mean and standard deviation over the elites that are used."""
    weight = used.to(elites.dtype)[:, :, None, None]
    count = weight.sum(dim=1)
    mean = (weight * elites).sum(dim=1) / count.clamp(min=1)
    square = (weight * (elites - mean[:, None]) ** 2).sum(dim=1)
    return mean, (square / (count - correction).clamp(min=1)).sqrt()
