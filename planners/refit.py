"""How a sampling planner updates its Gaussian from the plans and costs of a round."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol, Self

import torch
from torch import Tensor

from jepa_mpc.types import ActionBox, Costs, Plan, Plans

FEWEST_ELITES = 5  # fewer estimate the spread poorly (tried 2, 3, 5, 8 and a third, with 90 and 97 % invalid)


@dataclass(frozen=True)
class Gaussian:
    """Independent normal distributions over the entries of a plan: mean and standard deviation `B H A`."""

    mean: Plan
    std: Plan

    def around(self, noise: Plans) -> Plans:
        """Plans `B S H A` for standard noise of that shape."""
        return torch.addcmul(self.mean[:, None], self.std[:, None], noise)

    def spread_of(self, other: Gaussian) -> Annotated[Tensor, "B 1 H A"]:
        """This standard deviation as a share of another one; 0 where that is 0."""
        return torch.where(other.std > 0, self.std / other.std, 0.0)[:, None]

    def inside(self, box: ActionBox) -> Self:
        """The same with the mean clipped to the box (a refit that extrapolates may leave it)."""
        return dataclasses.replace(self, mean=box.clip(self.mean))

    def finite_or(self, other: Gaussian) -> Self:
        """The same, with non-finite entries replaced by those of `other` (squares overflow in a huge box)."""
        mean = torch.where(self.mean.isfinite(), self.mean, other.mean)
        return dataclasses.replace(self, mean=mean, std=torch.where(self.std.isfinite(), self.std, other.std))

    def at_least(self, std: Annotated[Tensor, "A"]) -> Self:
        """The same with a standard deviation of at least `std` per axis."""
        return dataclasses.replace(self, std=torch.maximum(self.std, std))


class Refit(Protocol):
    """Fits the next distribution to a scored round; invalid plans have cost +inf."""

    @property
    def min_samples(self) -> int:
        """Minimum number of plans per round."""

    def __call__(self, old: Gaussian, plans: Plans, costs: Costs) -> Gaussian:
        """Plans B S H A and costs B S in; a Gaussian over B H A out."""


@dataclass(frozen=True, kw_only=True)
class EliteRefit:
    """Fit the next Gaussian to the elites (cross-entropy method).

    Where costs are not finite, the number of elites shrinks in proportion, so that the selection stays as sharp as in a
    fully valid round, but not below five while as many are valid. Without a valid plan the Gaussian is unchanged.

    Args:
        num_elites: Number of elites (E).
        momentum: Share of the old mean that is kept.
        std_momentum: Share of the old standard deviation that is kept; None uses `momentum`.
        axis_momenta: Both shares for single action axes, by the index of the axis.
        correction: 1 for the unbiased standard deviation, 0 for the maximum-likelihood one.

    Reference: Rubinstein 1999, "The cross-entropy method for combinatorial and continuous optimization".
    """

    num_elites: int
    momentum: float = 0.0
    std_momentum: float | None = None
    axis_momenta: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    correction: int = 0

    def __post_init__(self) -> None:
        if self.num_elites <= self.correction:
            raise ValueError(f"need num_elites >= {self.correction + 1}, got {self.num_elites}")
        own = [share for shares in self.axis_momenta.values() for share in shares]
        momenta = [self.momentum, self.momentum if self.std_momentum is None else self.std_momentum, *own]
        if not all(0 <= share < 1 for share in momenta):
            raise ValueError(f"need every momentum in [0, 1), got {momenta}")

    @property
    def min_samples(self) -> int:
        """The number of elites."""
        return self.num_elites

    def __call__(self, old: Gaussian, plans: Plans, costs: Costs) -> Gaussian:
        """Plans B S H A and costs B S in; a Gaussian over B H A out."""
        elite_costs, elites = cheapest(plans, costs, self.num_elites)  # (B, E), (B, E, H, A)
        used = self._used(elite_costs, costs)
        mean, std = _moments(elites, used, self.correction)
        some, several = (used.sum(dim=1) > least for least in (0, 1))
        mean = torch.where(some[:, None, None], mean, old.mean)
        std = torch.where(several[:, None, None], std, old.std)
        keep, keep_std = self._kept_shares(mean)
        return Gaussian(keep * old.mean + (1 - keep) * mean, keep_std * old.std + (1 - keep_std) * std)

    def _kept_shares(self, like: Plan) -> tuple[Tensor | float, Tensor | float]:
        """Kept shares of the old mean and standard deviation: one for all axes, or per axis `A`."""
        shares = self.momentum, self.momentum if self.std_momentum is None else self.std_momentum
        if not self.axis_momenta:
            return shares
        kept = like.new_tensor(shares)[:, None].repeat(1, like.shape[-1])  # (2, A)
        for axis, own in self.axis_momenta.items():
            kept[:, axis] = kept.new_tensor(own)
        return kept[0], kept[1]

    def _used(self, elite_costs: Annotated[Tensor, "B E"], costs: Costs) -> Annotated[Tensor, "B E"]:
        """Mask of the elites in use: valid, and no larger a fraction of the valid plans than in a clean round."""
        share = (costs < torch.inf).sum(dim=1, keepdim=True) * self.num_elites / costs.shape[1]
        quota = share.ceil().clamp(min=FEWEST_ELITES)  # (B, 1)
        rank = torch.arange(self.num_elites, device=costs.device)
        return (elite_costs < torch.inf) & (rank < quota)


@dataclass(frozen=True, kw_only=True)
class SoftmaxRefit:
    """Move the mean to the average of the cheapest plans, weighted by exp(-(cost - least) / temperature) (MPPI).

    Args:
        temperature: Small values follow only the best plan.
        num_elites: Plans that are averaged, or None for all of them.
        std_momentum: Share of the old standard deviation that is kept; the rest is that of the weighted plans. 1 never
            adapts.
        unit: Unit of the temperature: the "cost" itself, or the "spread" of the averaged plans' costs (mean minus
            minimum), which makes the search invariant to the scale of the cost.

    Reference: Williams et al. 2017, arXiv:1707.02342; adaptive spread as in Hansen et al. 2024, arXiv:2310.16828.
    """

    temperature: float
    num_elites: int | None = None
    std_momentum: float = 1.0
    unit: Literal["cost", "spread"] = "cost"

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf or (self.num_elites is not None and self.num_elites < 1):
            raise ValueError(f"need temperature > 0 and num_elites >= 1, got {self.temperature} and {self.num_elites}")
        if not 0 <= self.std_momentum <= 1:
            raise ValueError(f"need 0 <= std_momentum <= 1, got {self.std_momentum}")
        if self.unit not in ("cost", "spread"):
            raise ValueError(f"unit must be 'cost' or 'spread', got {self.unit!r}")

    @property
    def min_samples(self) -> int:
        """The number of elites."""
        return self.num_elites or 1

    def __call__(self, old: Gaussian, plans: Plans, costs: Costs) -> Gaussian:
        """Plans B S H A and costs B S in; a Gaussian over B H A out."""
        elite_costs, elites = cheapest(plans, costs, self.num_elites or plans.shape[1])
        weights = self._weights(elite_costs).to(plans.dtype)[:, :, None, None]  # (B, E, 1, 1), sums to 1 or 0
        found = weights.sum(dim=1) > 0
        mean = torch.where(found, (weights * elites).sum(dim=1), old.mean)
        if self.std_momentum == 1:
            return Gaussian(mean, old.std)
        spread = (weights * (elites - mean[:, None]) ** 2).sum(dim=1).sqrt()
        keep = self.std_momentum
        return Gaussian(mean, torch.where(found, keep * old.std + (1 - keep) * spread, old.std))

    def _weights(self, costs: Annotated[Tensor, "B E"]) -> Annotated[Tensor, "B E"]:
        """Weights that sum to 1, or are all 0 where no cost is finite; costs come in ascending order."""
        valid = costs.isfinite()
        above = torch.where(valid, costs - torch.where(valid[:, :1], costs[:, :1], 0.0), 0.0)
        unit = torch.ones_like(above[:, :1])
        if self.unit == "spread":
            unit = above.sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True).clamp(min=1)
        smallest = torch.finfo(above.dtype).tiny
        weights = torch.where(valid, (-above / (self.temperature * unit).clamp(min=smallest)).exp(), 0.0)
        return weights / weights.sum(dim=1, keepdim=True).clamp(min=smallest)


@dataclass(frozen=True)
class BestRefit:
    """Move the mean to the cheapest plan and keep the spread (iterated random shooting)."""

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
