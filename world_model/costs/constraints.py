"""What must not happen in imagined futures: readings g, met where g <= 0, beside a cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Protocol

import torch
from torch import Tensor

from jepa_mpc.interfaces import Cost
from jepa_mpc.types import Costs, Goal, Plans, Rollout, Scores


class Limit(Protocol):
    """Reads from imagined futures how far a constraint is broken."""

    def readings(self, rollout: Rollout, plans: Plans, goal: Goal) -> Annotated[Tensor, "B S H Q"]:
        """Readings g of each step, met where g <= 0; differentiable."""


class ConstrainedCost:
    """A cost with named limits: planners rank plans that keep all limits by cost, and all others after them.

    Args:
        cost: What is wanted.
        limits: Name -> limit.

    Raises:
        ValueError: If there is no limit.
    """

    def __init__(self, cost: Cost, *, limits: Mapping[str, Limit]) -> None:
        if not limits:
            raise ValueError("a constrained cost needs at least one limit")
        self.cost, self.limits = cost, dict(limits)

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> Scores:
        """Costs `B S`, and the readings of all limits at their worst step, one after another, `B S Q`."""
        readings = [limit.readings(rollout, plans, goal) for limit in self.limits.values()]
        return Scores(costs=self.cost(rollout, plans, goal), readings=torch.cat(readings, dim=-1).amax(dim=2))


def costs_of(judged: Costs | Scores) -> Costs:
    """The costs `B S`, with or without constraints."""
    return judged.costs if isinstance(judged, Scores) else judged


def joined(parts: list[Costs | Scores]) -> Costs | Scores:
    """What chunks of candidates were judged, as one."""
    costs = torch.cat([costs_of(part) for part in parts], dim=1)
    readings = [part.readings for part in parts if isinstance(part, Scores)]
    return Scores(costs=costs, readings=torch.cat(readings, dim=1)) if readings else costs


def broken_down(judged: Costs | Scores, valid: Annotated[Tensor, "B S"] | None) -> Costs | Scores:
    """The same with a cost of +inf for futures that broke down."""
    if valid is None:
        return judged
    costs = torch.where(valid, costs_of(judged), torch.inf)
    return Scores(costs=costs, readings=judged.readings) if isinstance(judged, Scores) else costs
