"""Constraints on predicted futures: values g, satisfied where g <= 0, in addition to a cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Protocol

import torch
from torch import Tensor

from jepa_mpc.interfaces import Cost
from jepa_mpc.types import Costs, Goal, Plans, Rollout, Scores


class Limit(Protocol):
    """Computes constraint values of predicted futures."""

    def readings(self, rollout: Rollout, plans: Plans, goal: Goal) -> Annotated[Tensor, "B S H Q"]:
        """Constraint values g of each step, satisfied where g <= 0; differentiable."""


class ConstrainedCost:
    """A cost with named limits: plans that satisfy all limits are ranked by cost, all others after them.

    Args:
        cost: The cost to minimise.
        limits: Name -> limit.

    Raises:
        ValueError: If there is no limit.
    """

    def __init__(self, cost: Cost, *, limits: Mapping[str, Limit]) -> None:
        if not limits:
            raise ValueError("a constrained cost needs at least one limit")
        self.cost, self.limits = cost, dict(limits)

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> Scores:
        """Costs `B S`, and the maximum over the steps of all limits' values, concatenated to `B S Q`."""
        readings = [limit.readings(rollout, plans, goal) for limit in self.limits.values()]
        return Scores(costs=self.cost(rollout, plans, goal), readings=torch.cat(readings, dim=-1).amax(dim=2))


def costs_of(judged: Costs | Scores) -> Costs:
    """The costs `B S`, with or without constraints."""
    return judged.costs if isinstance(judged, Scores) else judged


def joined(parts: list[Costs | Scores]) -> Costs | Scores:
    """Concatenate the results of several chunks of candidates."""
    costs = torch.cat([costs_of(part) for part in parts], dim=1)
    readings = [part.readings for part in parts if isinstance(part, Scores)]
    return Scores(costs=costs, readings=torch.cat(readings, dim=1)) if readings else costs


def broken_down(judged: Costs | Scores, valid: Annotated[Tensor, "B S"] | None) -> Costs | Scores:
    """The same with cost +inf for invalid futures."""
    if valid is None:
        return judged
    costs = torch.where(valid, costs_of(judged), torch.inf)
    return Scores(costs=costs, readings=judged.readings) if isinstance(judged, Scores) else costs
