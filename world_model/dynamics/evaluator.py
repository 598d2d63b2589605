"""The planner's view of the world: a function from plans to costs."""

from __future__ import annotations

from dataclasses import dataclass

from jepa_mpc.interfaces import Bounded, Cost, Dynamics
from jepa_mpc.types import Context, Costs, Goal, Plans, Scores
from jepa_mpc.world_model.costs.constraints import broken_down, joined


@dataclass(frozen=True)
class Evaluator:
    """Rolls out plans and evaluates their futures; invalid futures cost +inf.

    Args:
        dynamics: Roll out plans, in chunks if they have a memory limit.
        cost: Evaluates futures.
        context: Past states and actions.
        goal: The goal.
    """

    dynamics: Dynamics
    cost: Cost
    context: Context
    goal: Goal

    def __call__(self, plans: Plans) -> Costs | Scores:
        """Plans `B S H A` to costs `B S`."""
        if isinstance(self.dynamics, Bounded):
            count = self.dynamics.at_once(self.context, plans.shape[2])
            return joined([self._judge(part) for part in plans.split(count, dim=1)])
        return self._judge(plans)

    def _judge(self, plans: Plans) -> Costs | Scores:
        rollout = self.dynamics.rollout(self.context, plans)
        return broken_down(self.cost(rollout, plans, self.goal), rollout.valid)
