"""One search for a plan: the request to the planner, its initial plans, and the rollout of its result."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_mpc.actions import shifted
from jepa_mpc.interfaces import Cost, Dynamics, Planner, Proposal
from jepa_mpc.types import ActionBox, Context, Goal, MpcSettings, Plan, PlanRequest, PlanResult, Plans, Rollout, Streams
from jepa_mpc.world_model.costs.constraints import costs_of
from jepa_mpc.world_model.dynamics.evaluator import Evaluator
from jepa_mpc.world_model.dynamics.step_model import known_steps


@dataclass(frozen=True, kw_only=True)
class PlanSearch:
    """Searches for the plan with the cheapest predicted future. Stateless.

    Args:
        dynamics: The world model, learned or true.
        cost: The cost to minimise.
        planner: Searches for plans.
        box: The actions that the robot accepts, in physical units.
        settings: The horizon.
        generator: Source of the planner's randomness, on the device of the box; or one per world.
        proposal: Proposes plans (a policy): its best guess replaces the last plan as the initial plan, and the last
            plan becomes a candidate. None starts from the last plan alone.
    """

    dynamics: Dynamics
    cost: Cost
    planner: Planner
    box: ActionBox
    settings: MpcSettings
    generator: Streams
    proposal: Proposal | None = None

    def still(self, batch: int) -> Plan:
        """The plan of zero actions `B H A`, clipped to the box."""
        return self.box.clip(self.box.low.new_zeros(batch, self.settings.horizon, self.box.dim))

    def moved_on(self, plan: Plan, steps: int) -> Plan:
        """A plan after `steps` executed steps, padded with zero actions."""
        return shifted(plan, steps, tail=self.still(len(plan)))

    def go_on(
        self, context: Context, goal: Goal, *, guess: Plan | None, last: PlanResult | None, age: int
    ) -> PlanResult:
        """Search from an initial plan and from the elites of the last search.

        Args:
            context: Past states and actions.
            goal: The goal.
            guess: The current plan, shifted to the present, or None.
            last: The last search, or None.
            age: Steps executed since then.
        """
        kept = None if last is None else last.elites
        still = self.still(context.latents.shape[0])
        again = None if kept is None else shifted(kept, age, tail=still[:, None].expand_as(kept))
        return self.run(context, goal, guess, again)

    def run(self, context: Context, goal: Goal, guess: Plan | None = None, again: Plans | None = None) -> PlanResult:
        """Search from an initial plan `B H A` and further candidates `B S H A`, both optional."""
        batch = context.latents.shape[0]
        begin, candidates = self._begin(context, goal, guess, again)
        return self.planner.plan(
            PlanRequest(
                evaluate=Evaluator(self.dynamics, self.cost, context, goal),
                box=self.box,
                batch=batch,
                horizon=self.settings.horizon,
                generator=self.generator,
                warm_start=begin,
                candidates=candidates,
                fallback=self.still(batch) if guess is None else guess,
                deadline_s=self.settings.deadline_s,
                steps=known_steps(self.dynamics, self.cost, context=context, goal=goal),
            )
        )

    @torch.no_grad()
    def imagine(self, context: Context, plan: Plan) -> Rollout:
        """Roll out a plan `B H A`, one candidate per world."""
        return self.dynamics.rollout(context, plan[:, None])

    @torch.no_grad()
    def present_cost(self, context: Context, goal: Goal) -> Tensor:
        """The cost `B` of the newest state, evaluated as a future of one step.

        For goals given by simulator sensors, one step of the zero action stands for the current state.
        """
        still = self.still(context.latents.shape[0])[:, None, :1]
        if goal.sensors is None:
            rollout = Rollout(latents=context.latents[:, None, -1:])
        else:
            rollout = self.dynamics.rollout(context, still)
        return costs_of(self.cost(rollout, still, goal))[:, 0]

    def _begin(
        self, context: Context, goal: Goal, guess: Plan | None, again: Plans | None
    ) -> tuple[Plan | None, Plans | None]:
        """The initial plan and candidates: the proposal first, then the last search's plans."""
        if self.proposal is None:
            return guess, again
        proposed = self.proposal(context, goal, horizon=self.settings.horizon)
        proposed = torch.where(proposed.isfinite(), proposed, 0.0)
        others = [proposed[:, 1:]] + ([] if guess is None else [guess[:, None]]) + ([] if again is None else [again])
        candidates = torch.cat(others, dim=1)
        return self.box.clip(proposed[:, 0]), candidates if candidates.shape[1] else None
