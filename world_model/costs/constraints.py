"""What must not happen in imagined futures: readings g, met where g <= 0, beside a cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from jepa_mpc.interfaces import Cost
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Costs, Goal, Plans, Rollout, Scores

Of = Literal["proprio", "sensors"]


class Limit(Protocol):
    """Reads from imagined futures how far a constraint is broken."""

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> Annotated[Tensor, "B S Q"]:
        """Readings g of each candidate, met where g <= 0; differentiable."""


class ConstrainedCost(nn.Module):
    """A cost with named limits: planners rank plans that keep all limits by cost, and all others after them.

    Args:
        cost: What is wanted.
        limits: Name -> limit.

    Raises:
        ValueError: If there is no limit.
    """

    def __init__(self, cost: Cost, *, limits: Mapping[str, Limit]) -> None:
        super().__init__()
        if not limits:
            raise ValueError("a constrained cost needs at least one limit")
        self.cost, self.limits = cost, dict(limits)

    def forward(self, rollout: Rollout, plans: Plans, goal: Goal) -> Scores:
        """Costs `B S` and the readings of all limits, one after another, `B S Q`."""
        readings = [limit(rollout, plans, goal) for limit in self.limits.values()]
        return Scores(costs=self.cost(rollout, plans, goal), readings=torch.cat(readings, dim=-1))


class RangeLimit(nn.Module):
    """Predicted proprioception (joint angles, the hand's place) or simulator sensors stay in a range at every step.

        g = max over h of (low - v_h) / unit   and   max over h of (v_h - high) / unit,   for each axis

    Args:
        low: Least value of each axis, in its unit.
        high: Greatest value of each axis.
        axes: Which entries of the proprioception or of the sensors these are.
        of: "proprio" or "sensors".
        unit: Excess on each axis that counts as 1; half the range by default, so that readings need no unit.

    Raises:
        ValueError: If the numbers differ in count, the range is empty, or `of` is unknown.
    """

    low: Tensor
    high: Tensor
    unit: Tensor

    def __init__(
        self, *, low: Tensor, high: Tensor, axes: tuple[int, ...], of: Of = "proprio", unit: Tensor | None = None
    ) -> None:
        super().__init__()
        if low.shape != high.shape or low.dim() != 1 or len(axes) != len(low):
            raise ValueError(
                f"low, high and axes must be of one length, got {tuple(low.shape)}, {tuple(high.shape)} and {len(axes)}"
            )
        if not bool((low < high).all()):
            raise ValueError(f"need low < high on every axis, got {low.tolist()} and {high.tolist()}")
        if of not in get_args(Of):
            raise ValueError(f"of must be one of {', '.join(get_args(Of))}, got {of!r}")
        self.axes, self.of = list(axes), of
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.register_buffer("unit", (high - low) / 2 if unit is None else unit)

    def forward(self, rollout: Rollout, plans: Plans, goal: Goal) -> Annotated[Tensor, "B S Q"]:
        """Readings `B S Q` with Q twice the number of axes.

        Raises:
            ValueError: If the rollout does not carry what is limited.
        """
        values = rollout.proprio if self.of == "proprio" else rollout.sensors
        if values is None:
            raise ValueError(f"the rollout carries no {self.of}: this limit needs a world that predicts them")
        check_shape(values, "B S H P", B=plans.shape[0], S=plans.shape[1])
        values = values[..., self.axes]
        below, above = (self.low - values) / self.unit, (values - self.high) / self.unit
        return torch.cat([below, above], dim=-1).amax(dim=2)


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
