"""Planning in a user-defined model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from jepa_mpc.costs import PlanCost
from jepa_mpc.interfaces import Cost
from jepa_mpc.planners import build_planner
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, Context, Goal, PlanRequest, PlanResult, Plans, Rollout
from jepa_mpc.world_model.costs.goal import GoalDistance
from jepa_mpc.world_model.dynamics.evaluator import Evaluator

Step = Callable[[Tensor, Tensor], Tensor]
"""Maps states `... D` and actions `... A` to next states `... D`."""


class StepDynamics:
    """A world model from a one-step function; a state is one token.

    Args:
        step: Maps states `B S D` and actions `B S A` to next states.
    """

    def __init__(self, step: Step) -> None:
        self.step = step

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """Roll out plans `B S H A`: latents `B S H 1 D`."""
        state = context.latents[:, -1, 0][:, None].expand(-1, plans.shape[1], -1)
        states = []
        for action in plans.unbind(dim=2):
            state = self.step(state, action)
            states.append(state)
        return Rollout(latents=torch.stack(states, dim=2)[:, :, :, None])


def plan(
    step: Step,
    *,
    start: Tensor,
    goal: Tensor,
    low: Sequence[float],
    high: Sequence[float],
    horizon: int,
    planner: str = "cem",
    cost: Cost | None = None,
    seed: int = 0,
    deadline_s: float = float("inf"),
    **settings: Any,
) -> PlanResult:
    """Search for actions that lead from a start to a goal in a user-defined model.

    Args:
        step: The model: maps states `... D` and actions `... A` to next states; may be a torch module.
        start: State `D`, or `B D` for a batch of B worlds.
        goal: The state to reach, of the same shape.
        low: Smallest value of each action axis.
        high: Largest value of each action axis.
        horizon: Length of the plan in steps.
        planner: A name of `jepa_mpc.planners.PLANNERS`.
        cost: Cost to minimise; by default the mean squared distance to the goal over the steps.
        seed: Seed of the search.
        deadline_s: Time limit (s), after which the best plan so far is returned.
        **settings: Arguments of the planner.

    Raises:
        UnknownName: If there is no such planner.
        ValueError: If start and goal differ in shape.
    """
    if start.shape != goal.shape or start.dim() not in (1, 2):
        raise ValueError(f"start and goal must be D or B D alike, got {tuple(start.shape)} and {tuple(goal.shape)}")
    states, goals = (value.reshape(-1, 1, value.shape[-1]).float() for value in (start, goal))  # (B, 1, D)
    box = ActionBox(low=torch.tensor(low, dtype=torch.float32), high=torch.tensor(high, dtype=torch.float32))
    context = Context(latents=states[:, None], actions=torch.zeros(len(states), 0, box.dim))
    return build_planner(planner, settings).plan(
        PlanRequest(
            evaluate=Evaluator(StepDynamics(step), cost or PlanCost(GoalDistance()), context, Goal(latents=goals)),
            box=box,
            batch=len(states),
            horizon=horizon,
            generator=generator(seed, "planner"),
            deadline_s=deadline_s,
        )
    )
