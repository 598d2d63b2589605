"""Constraints for gradient planners: a cost whose minimum satisfies the constraints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Tensor

from jepa_mpc.types import Costs, Scores

Multipliers = Annotated[Tensor, "B S Q"]


class Treatment(Protocol):
    """Combines costs and constraint values into one cost to descend."""

    def lagrangian(self, scores: Scores, multipliers: Multipliers, *, unit: Costs, iteration: int) -> Costs:
        """The differentiable cost `B S` at this iteration; `unit` `B 1` is the typical size of the costs."""

    def updated(self, multipliers: Multipliers, scores: Scores, *, iteration: int) -> Multipliers:
        """The multipliers `B S Q` for the next iteration."""


@dataclass(frozen=True, kw_only=True)
class AugmentedLagrangian:
    """A quadratic penalty with learned multipliers, one per constraint.

        cost + unit * sum over q of (max(0, m_q + w (g_q + margin))^2 - m_q^2) / (2 w)
        every few iterations:  m_q <- max(0, m_q + w (g_q + margin)),  w <- growth * w

    Each plan has its own multipliers, so plans never influence each other.

    Args:
        weight: Initial weight w of the penalty: a violation of 1 costs about w / 2 times the typical size of the costs.
        growth: Factor of the weight at each update.
        max_weight: Upper limit of the weight.
        every: Iterations between updates.
        margin: Target distance below 0, in the unit of the constraint, so that rounding does not violate it.

    Raises:
        ValueError: If a number is out of range.

    Reference: Nocedal and Wright 2006, Numerical Optimization, section 17.3.
    """

    weight: float = 5.0
    growth: float = 1.1
    max_weight: float = 50.0
    every: int = 3
    margin: float = 1e-3

    def __post_init__(self) -> None:
        if not (self.weight > 0 and self.growth >= 1 and self.max_weight >= self.weight):
            raise ValueError(
                f"need weight > 0, growth >= 1 and max_weight >= weight, got {self.weight}, {self.growth} and "
                f"{self.max_weight}"
            )
        if self.every < 1 or not self.margin >= 0:
            raise ValueError(f"need every >= 1 and margin >= 0, got {self.every} and {self.margin}")

    def lagrangian(self, scores: Scores, multipliers: Multipliers, *, unit: Costs, iteration: int) -> Costs:
        """The cost `B S` to descend at this iteration."""
        weight = self._weight(iteration)
        pushed = (multipliers + weight * (scores.readings + self.margin)).clamp(min=0)
        return scores.costs + unit * ((pushed.square() - multipliers.square()) / (2 * weight)).sum(dim=-1)

    @torch.no_grad()
    def updated(self, multipliers: Multipliers, scores: Scores, *, iteration: int) -> Multipliers:
        """The multipliers `B S Q` for the next iteration; plans without finite constraint values keep theirs."""
        if (iteration + 1) % self.every:
            return multipliers
        pushed = (multipliers + self._weight(iteration) * (scores.readings + self.margin)).clamp(min=0)
        return torch.where(pushed.isfinite(), pushed, multipliers)

    def _weight(self, iteration: int) -> float:
        return min(self.max_weight, self.weight * self.growth ** (iteration // self.every))


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """A quadratic penalty with growing weight: cost + unit * w / 2 * sum of max(0, g + margin)^2.

    Args:
        weight: Initial weight w.
        growth: Factor of the weight at each iteration.
        max_weight: Upper limit of the weight.
        margin: Target distance below 0, in the unit of the constraint.

    Raises:
        ValueError: If a number is out of range.
    """

    weight: float = 10.0
    growth: float = 1.05
    max_weight: float = 100.0
    margin: float = 1e-2

    def __post_init__(self) -> None:
        if not (self.weight > 0 and self.growth >= 1 and self.max_weight >= self.weight and self.margin >= 0):
            raise ValueError(
                f"need weight > 0, growth >= 1, max_weight >= weight and margin >= 0, got {self.weight}, "
                f"{self.growth}, {self.max_weight} and {self.margin}"
            )

    def lagrangian(self, scores: Scores, multipliers: Multipliers, *, unit: Costs, iteration: int) -> Costs:
        """The cost `B S` to descend at this iteration."""
        weight = min(self.max_weight, self.weight * self.growth**iteration)
        return scores.costs + unit * weight / 2 * (scores.readings + self.margin).clamp(min=0).square().sum(dim=-1)

    def updated(self, multipliers: Multipliers, scores: Scores, *, iteration: int) -> Multipliers:
        """The multipliers, unchanged: a penalty has none to learn."""
        return multipliers


class Constrained:
    """State of the constraint treatment during one search.

    Args:
        treatment: Combines costs and constraint values.
    """

    def __init__(self, treatment: Treatment) -> None:
        self.treatment = treatment
        self.iteration = 0
        self.unit: Tensor | None = None
        self.multipliers: Tensor | None = None

    def cost(self, scores: Scores) -> Costs:
        """The cost `B S` to descend (the plain costs without constraints); advances the iteration."""
        if scores.readings.shape[-1] == 0:
            return scores.costs
        if self.multipliers is None or self.unit is None:
            self.multipliers = torch.zeros_like(scores.readings)
            self.unit = usual_size(scores.costs)
        cost = self.treatment.lagrangian(scores, self.multipliers, unit=self.unit, iteration=self.iteration)
        self.multipliers = self.treatment.updated(self.multipliers, scores, iteration=self.iteration)
        self.iteration += 1
        return cost


def usual_size(costs: Costs) -> Annotated[Tensor, "B 1"]:
    """Mean absolute value of each world's finite costs, or 1 where that is 0."""
    size = costs.detach().abs()
    known = size.isfinite()
    mean = torch.where(known, size, 0.0).sum(dim=1, keepdim=True) / known.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where((mean > 0) & mean.isfinite(), mean, 1.0)
