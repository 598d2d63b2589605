"""Costs of plans for learned and simulated dynamics: step costs `B S H`, and one reduction over the plan.

    cost = PlanCost(GoalDistance())                                    # mean over the steps
    cost = PlanCost(GoalDistance(distance=absolute), reduction=last)   # last step only
    cost = WeightedSum({"goal": (1.0, cost), "effort": (0.05, PlanCost(Effort()))})

Lower is better. A step cost may come in parts `B S H Q`, such as one per action axis; the parts are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Protocol

import torch
from torch import Tensor

from jepa_mpc.interfaces import Cost
from jepa_mpc.types import Costs, Goal, Plans, Rollout

StepCosts = Annotated[Tensor, "B S H"]
Reduction = Callable[[StepCosts], Costs]


class StepCost(Protocol):
    """Cost of every step of predicted futures."""

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> StepCosts:
        """Cost of each predicted state and the action that led to it: `B S H`, or its parts `B S H Q`."""


def per_step(steps: Annotated[Tensor, "B S H ..."]) -> StepCosts:
    """One cost per step: the mean over the parts, if there are any."""
    return steps if steps.dim() == 3 else steps.flatten(3).mean(dim=-1)


def mean(steps: StepCosts) -> Costs:
    """The mean over the plan. Use it for agents that replan at every step; see `last`."""
    return steps.flatten(2).mean(dim=-1)


def last(steps: StepCosts) -> Costs:
    """The last step only. An agent that replans at every step delays: its goal stays one plan length away."""
    return per_step(steps)[..., -1]


@dataclass(frozen=True)
class MeanAndEnd:
    """The mean over the plan plus `at_end` times the cost of the last step.

    Raises:
        ValueError: If the weight is negative.
    """

    at_end: float

    def __post_init__(self) -> None:
        if not self.at_end >= 0:
            raise ValueError(f"need at_end >= 0, got {self.at_end}")

    def __call__(self, steps: StepCosts) -> Costs:
        """Step costs `B S H` to costs `B S`."""
        return mean(steps) + self.at_end * last(steps)


@dataclass(frozen=True)
class Discounted:
    """sum over h = 1..H of gamma^{h-1} c_h."""

    discount: float = 1.0

    def __call__(self, steps: StepCosts) -> Costs:
        """Step costs `B S H` to costs `B S`."""
        powers = self.discount ** torch.arange(steps.shape[2], device=steps.device, dtype=steps.dtype)
        return (per_step(steps) * powers).sum(dim=-1)

    def after(self, cost: Costs, horizon: int) -> Costs:
        """The discounted cost `B S` after a plan of H steps: gamma^H c."""
        return self.discount**horizon * cost


@dataclass(frozen=True)
class PlanCost:
    """A step cost, reduced over the plan; an invalid future costs infinity.

    Args:
        step: Cost of each step.
        reduction: Reduces the step costs of a plan to one number.
    """

    step: StepCost
    reduction: Reduction = mean

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> Costs:
        """Evaluate every candidate `B S`."""
        judged = _ends(rollout) if self.reduction is last else rollout  # only the last state is needed
        cost = self.reduction(self.step(judged, plans, goal))
        return cost if rollout.valid is None else torch.where(rollout.valid, cost, torch.inf)


class WeightedSum:
    """A sum of named costs: cost = sum over the terms of weight * term.

    Args:
        terms: Name -> (weight, cost).

    Raises:
        ValueError: If there is no term.
    """

    def __init__(self, terms: Mapping[str, tuple[float, Cost]]) -> None:
        if not terms:
            raise ValueError("a weighted sum needs at least one term")
        self._terms = dict(terms)

    def terms(self, rollout: Rollout, plans: Plans, goal: Goal) -> dict[str, Costs]:
        """Each weighted term `B S` by name, for logs and diagnosis."""
        return {name: weight * cost(rollout, plans, goal) for name, (weight, cost) in self._terms.items()}

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> Costs:
        """Evaluate every candidate `B S`."""
        return torch.stack(tuple(self.terms(rollout, plans, goal).values())).sum(dim=0)


def _ends(rollout: Rollout) -> Rollout:
    """The last step of each future, as a rollout of one step."""
    steps = {name: getattr(rollout, name) for name in ("latents", "proprio", "sensors", "disagreement")}
    return replace(rollout, **{name: value[:, :, -1:] for name, value in steps.items() if value is not None})
