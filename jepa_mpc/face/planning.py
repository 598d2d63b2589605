"""How agents plan: the name of a planner, its arguments, and how far it looks ahead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from jepa_mpc.costs import PlanCost, WeightedSum
from jepa_mpc.interfaces import Cost, Planner
from jepa_mpc.planners import build_planner
from jepa_mpc.types import MpcSettings
from jepa_mpc.world_model.costs.terms import Effort


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """How an agent plans.

    Args:
        planner: Name of a planner.
        arguments: Its arguments.
        horizon: Steps that a plan looks ahead.
        effort: Weight of the actions' size against the squared distance (m^2); damps the last steps.
        hold_m: Stand still while the goal seems nearer than this (m).
        execute: Actions of a plan that are carried out before planning anew.
        deadline_s: Seconds that one plan may take.
    """

    planner: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    horizon: int = 2
    effort: float = 0.0
    hold_m: float = 0.0
    execute: int = 1
    deadline_s: float = float("inf")

    def build(self) -> Planner:
        """The planner (see `planners.build_planner`)."""
        return build_planner(self.planner, self.arguments)

    def mpc(self) -> MpcSettings:
        """The agent's settings; the cost is a squared distance."""
        return MpcSettings(
            horizon=self.horizon, execute=self.execute, hold_below=self.hold_m**2, deadline_s=self.deadline_s
        )

    def cost(self, goal: Cost, *, high: Tensor) -> Cost:
        """The goal's cost (m^2) plus the effort, whose unit is the squared longest step `high`."""
        if self.effort == 0:
            return goal
        return WeightedSum({"goal": (1.0, goal), "effort": (self.effort, PlanCost(Effort(scale=high)))})
