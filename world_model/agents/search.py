"""One search for a plan: what is asked of the planner, where it begins, and what its answer is imagined to lead to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from jepa_mpc.actions import shifted
from jepa_mpc.interfaces import Cost, Dynamics, Planner, Proposal
from jepa_mpc.types import ActionBox, Context, Goal, MpcSettings, Plan, PlanRequest, PlanResult, Plans, Rollout
from jepa_mpc.world_model.costs.constraints import costs_of
from jepa_mpc.world_model.dynamics.evaluator import Evaluator
from jepa_mpc.world_model.dynamics.step_model import known_steps


@dataclass(frozen=True, kw_only=True)
class PlanSearch:
    """Searches for the plan whose imagined future is cheapest. It holds nothing that changes.

    Args:
        dynamics: The world model, learned or true.
        cost: What is wanted.
        planner: Searches for plans.
        box: The actions that the robot accepts, in physical units.
        settings: How far to look ahead.
        generator: Source of the planner's randomness, on the device of the box.
        proposal: Names plans that every search begins with (a policy): its best guess takes the place of the last
            plan, which becomes a candidate beside the others. None begins with the last plan alone.
    """

    dynamics: Dynamics
    cost: Cost
    planner: Planner
    box: ActionBox
    settings: MpcSettings
    generator: Generator
    proposal: Proposal | None = None

    def still(self, batch: int) -> Plan:
        """The plan of zero actions `B H A`, or of the nearest ones that the box allows."""
        return self.box.clip(self.box.low.new_zeros(batch, self.settings.horizon, self.box.dim))

    def moved_on(self, plan: Plan, steps: int) -> Plan:
        """A plan after `steps` of its steps were carried out; it ends standing still."""
        return shifted(plan, steps, tail=self.still(len(plan)))

    def go_on(
        self, context: Context, goal: Goal, *, guess: Plan | None, last: PlanResult | None, age: int
    ) -> PlanResult:
        """Search from a first guess and from the good candidates of the last search.

        Args:
            context: What is known of the past.
            goal: Where to go.
            guess: The plan that is being carried out, moved on to the present, or None.
            last: The last search, or None.
            age: Steps that were carried out since then.
        """
        kept = None if last is None else last.elites
        still = self.still(context.latents.shape[0])
        again = None if kept is None else shifted(kept, age, tail=still[:, None].expand_as(kept))
        return self.run(context, goal, guess, again)

    def run(self, context: Context, goal: Goal, guess: Plan | None = None, again: Plans | None = None) -> PlanResult:
        """Search from a first guess `B H A` and further candidates `B S H A`, both optional."""
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
        """What a plan `B H A` is imagined to lead to, one candidate per world."""
        return self.dynamics.rollout(context, plan[:, None])

    @torch.no_grad()
    def present_cost(self, context: Context, goal: Goal) -> Tensor:
        """The cost `B` of the newest state, as if it were all the future there is.

        Where the goal is given by simulator sensors, those of one step of standing still stand for the present.
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
        """Where a search begins, and what it tries besides: the proposal first, the last search's plans beside it."""
        if self.proposal is None:
            return guess, again
        proposed = self.proposal(context, goal, horizon=self.settings.horizon)
        proposed = torch.where(proposed.isfinite(), proposed, 0.0)
        others = [proposed[:, 1:]] + ([] if guess is None else [guess[:, None]]) + ([] if again is None else [again])
        candidates = torch.cat(others, dim=1)
        return self.box.clip(proposed[:, 0]), candidates if candidates.shape[1] else None
