"""A refit that descends: slopes estimated from the costs of a round, step sizes adapted to success."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.planners.refit import Gaussian, cheapest
from jepa_mpc.types import Costs, Plans


@dataclass(frozen=True)
class DescentState(Gaussian):
    """A normal distribution that moves downhill; D = H A entries.

    Args:
        base: Cheapest plan so far, `B D`.
        cost: Its cost `B 1`, +inf before there is one.
        radius: Length of the next step on each entry, in units of the first standard deviation, `B 1`.
        slope: Smoothed slope, `B D`.
        square: Smoothed square of the slope, `B D`.
        first: First standard deviation, `B D`.
        scale: Spread of the first costs, the unit of all slopes, `B 1`; 0 before the first round.
        age: Rounds so far.
    """

    base: Annotated[Tensor, "B D"]
    cost: Annotated[Tensor, "B 1"]
    radius: Annotated[Tensor, "B 1"]
    slope: Annotated[Tensor, "B D"]
    square: Annotated[Tensor, "B D"]
    first: Annotated[Tensor, "B D"]
    scale: Annotated[Tensor, "B 1"]
    age: int


@dataclass(frozen=True, kw_only=True)
class SlopeRefit:
    """Step from the best plan so far against the slope of the cost, estimated from each round's plans.

    For costs that are smooth but not differentiable (a simulator). A few plans around the mean give the slope in the
    subspace they span (ridge regression). Entries are normalised as in Adam. The step grows after a round that found a
    cheaper plan and shrinks otherwise; the spread follows the step. The search is local: with many local minima, run a
    global search first. Plans without a finite cost are ignored.

    Args:
        ridge: Ridge penalty on the slopes, relative to the spread of the plans.
        start: Initial step of each entry, in units of the first standard deviation.
        spread: Standard deviation of the plans, as a share of the step.
        grow: Factor of the step after success.
        shrink: Factor of the step after failure.
        memory: Share of the old slope, and of its old square, kept each round.
        limits: Smallest and largest step, in units of the first standard deviation.
    """

    ridge: float
    start: float = 0.5
    spread: float = 0.3
    grow: float = 1.1
    shrink: float = 0.85
    memory: tuple[float, float] = (0.6, 0.8)
    limits: tuple[float, float] = (2e-4, 2.0)

    def __post_init__(self) -> None:
        if not (self.start > 0 and self.spread > 0 and self.ridge > 0 and self.grow >= 1 and 0 < self.shrink <= 1):
            raise ValueError(
                f"need start, spread, ridge > 0, grow >= 1 and 0 < shrink <= 1, got {self.start}, {self.spread}, "
                f"{self.ridge}, {self.grow} and {self.shrink}"
            )
        if not all(0 <= share < 1 for share in self.memory) or not 0 < self.limits[0] <= self.limits[1]:
            raise ValueError(
                f"need 0 <= memory < 1 and 0 < lower limit <= upper limit, got {self.memory} and {self.limits}"
            )

    @property
    def min_samples(self) -> int:
        """Two plans determine a slope."""
        return 2

    def __call__(self, old: Gaussian, plans: Plans, costs: Costs) -> Gaussian:
        """Plans B S H A and costs B S in; a Gaussian over B H A out."""
        before = old if isinstance(old, DescentState) else self._begin(old)
        costs = costs.to(plans.dtype)  # simulators return float64
        least, best = cheapest(plans, costs, 1)  # (B, 1), (B, 1, H, A)
        found, better = costs.isfinite().any(dim=1, keepdim=True), least < before.cost
        base = torch.where(better, best[:, 0].flatten(1), before.base)
        factor = torch.where(better, self.grow, torch.where(found, self.shrink, 1.0))
        radius = (before.radius * factor).clamp(*self.limits)
        measured, scale = self._measured(before, plans, costs)
        slope, square, direction = self._direction(before, torch.where(found, measured, before.slope))
        return DescentState(
            mean=(base - radius * before.first * direction).view_as(before.mean),
            std=(self.spread * radius * before.first).view_as(before.mean),
            base=base,
            cost=torch.where(better, least, before.cost),
            radius=radius,
            slope=slope,
            square=square,
            first=before.first,
            scale=scale,
            age=before.age + 1,
        )

    def _begin(self, old: Gaussian) -> DescentState:
        mean, nothing = old.mean.flatten(1), torch.zeros_like(old.mean.flatten(1))
        unknown = mean.new_full((len(mean), 1), torch.inf)
        radius, scale = torch.full_like(unknown, self.start), torch.zeros_like(unknown)
        first = old.std.flatten(1)
        return DescentState(old.mean, old.std, mean, unknown, radius, nothing, nothing, first, scale, 0)

    def _measured(self, before: DescentState, plans: Plans, costs: Costs) -> tuple[Annotated[Tensor, "B D"], Tensor]:
        """The slope in units of `scale` per first standard deviation, and that scale.

        Ridge regression of the costs on the plans, solved in the dual: there are fewer plans than entries.
        """
        valid = costs.isfinite()
        share = valid / valid.sum(dim=1, keepdim=True).clamp(min=1)
        above = torch.where(valid, costs - torch.where(valid, costs, torch.inf).amin(dim=1, keepdim=True), 0.0)
        spread = above.amax(dim=1, keepdim=True)
        scale = torch.where(before.scale > 0, before.scale, spread)
        height = (above - (share * above).sum(dim=1, keepdim=True)) * valid / torch.where(scale > 0, scale, 1.0)
        apart = torch.where(valid[:, :, None], _apart(before, plans), 0.0)
        apart = (apart - (share[:, None] @ apart)) * valid[:, :, None]  # (B, S, D)
        likeness = apart @ apart.mT
        pull = self.ridge * likeness.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] + torch.finfo(costs.dtype).eps
        root, failed = torch.linalg.cholesky_ex(likeness + pull * torch.eye(costs.shape[1]).to(likeness))
        weights = torch.cholesky_solve(height[:, :, None], root)
        slope = (apart.mT @ weights)[:, :, 0] * (before.first > 0)
        spread_now = torch.where(before.first > 0, before.std.flatten(1) / before.first.clamp(min=1e-30), 1.0)
        slope = slope / spread_now.clamp(min=self.limits[0] * self.spread)
        return torch.where((failed == 0)[:, None] & slope.isfinite(), slope, before.slope), scale

    def _direction(self, before: DescentState, measured: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Smoothed slope, its smoothed square, and the uphill direction with entries of about 1."""
        keep, keep_square = self.memory
        slope = keep * before.slope + (1 - keep) * measured
        square = keep_square * before.square + (1 - keep_square) * measured.square()
        rounds = before.age + 1
        size = (square / (1 - keep_square**rounds)).sqrt()
        return slope, square, slope / (1 - keep**rounds) / size.clamp(min=1e-12)


def _apart(before: DescentState, plans: Plans) -> Annotated[Tensor, "B S D"]:
    """Distance of plans from the mean in current standard deviations; 0 on fixed entries."""
    std = before.std.flatten(1)[:, None]
    away = plans.flatten(2) - before.mean.flatten(1)[:, None]
    return torch.where(std > 0, away / torch.where(std > 0, std, 1.0), 0.0)
