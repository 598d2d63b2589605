"""Planner settings of agents: planner name, arguments and horizon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from torch import Tensor

from jepa_mpc.costs import PlanCost, WeightedSum
from jepa_mpc.interfaces import Cost, Planner
from jepa_mpc.planners import build_planner
from jepa_mpc.types import MpcSettings
from jepa_mpc.world_model.costs.terms import Effort

LARGEST = 1e6


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Planner settings of an agent.

    Args:
        planner: Name of a planner.
        arguments: Its arguments.
        horizon: Planning horizon in steps.
        effort: Weight of the squared action size relative to the squared distance (m^2); damps the last steps.
        hold_m: Hold still while the estimated distance to the goal is below this value (m).
        execute: Actions of a plan executed before replanning.
        deadline_s: Time limit of one search (s).

    Raises:
        ValueError: If `effort` or `hold_m` is negative or too large, or `horizon` is no whole number from 1.
    """

    planner: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    horizon: int = 2
    effort: float = 0.0
    hold_m: float = 0.0
    execute: int = 1
    deadline_s: float = float("inf")

    def __post_init__(self) -> None:
        for name in ("effort", "hold_m"):
            value = getattr(self, name)
            if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) <= LARGEST:
                raise ValueError(f"{name} must be a number from 0 to {LARGEST:g}, got {value!r}")
        if not isinstance(self.horizon, Integral) or self.horizon < 1:
            raise ValueError(f"horizon must be a whole number from 1, got {self.horizon!r}")

    def build(self) -> Planner:
        """Build the planner (see `planners.build_planner`)."""
        return build_planner(self.planner, self.arguments)

    def mpc(self) -> MpcSettings:
        """The MPC settings; the cost is a squared distance."""
        return MpcSettings(
            horizon=self.horizon, execute=self.execute, hold_below=self.hold_m**2, deadline_s=self.deadline_s
        )

    def cost(self, goal: Cost, *, high: Tensor) -> Cost:
        """The goal cost (m^2) plus the effort, in units of the squared longest step `high`."""
        if self.effort == 0:
            return goal
        return WeightedSum({"goal": (1.0, goal), "effort": (self.effort, PlanCost(Effort(scale=high)))})
