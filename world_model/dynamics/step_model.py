"""A learned world one step at a time: what planners that search over states see of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_mpc.interfaces import Cost, Dynamics
from jepa_mpc.types import Context, Costs, Goal, Imagined, Latents, Plans, Rollout, Scores, StepModel
from jepa_mpc.world_model.dynamics.learned import LearnedDynamics, evaluating
from jepa_mpc.world_model.parts.predictors import RollingPredictor
from jepa_mpc.world_model.parts.predictors.causal import CausalPredictor


def step_model(dynamics: LearnedDynamics, cost: Cost, *, context: Context, goal: Goal) -> StepModel:
    """The step model of a learned world, a cost and a goal, from a context on.

    A step looks back on the context and on the states before it in the same course, as the predictor does in a rollout:
    for the states that a rollout gives, `follow` gives the same states again.

    Args:
        dynamics: The learned world; its states must be latents alone.
        cost: What is wanted.
        context: What is known of the past.
        goal: Where to go.

    Raises:
        ValueError: If the predictor carries proprioception along, which no state of the search would hold.
    """
    if dynamics.predictor.proprio is not None:
        raise ValueError(
            "a search over states needs latents that hold the whole state, and this predictor carries proprioception "
            "beside them; use a planner that searches over actions alone"
        )
    world = _World(dynamics, cost, context, goal)
    return StepModel(
        start=context.latents[:, -1], follow=world.follow, imagine=world.imagine, judge=world.judge, goal=goal.latents
    )


def known_steps(dynamics: Dynamics, cost: Cost, *, context: Context, goal: Goal) -> StepModel | None:
    """The step model where the dynamics have one (learned ones whose states are latents alone), else None."""
    if not isinstance(dynamics, LearnedDynamics) or dynamics.predictor.proprio is not None:
        return None
    return step_model(dynamics, cost, context=context, goal=goal)


@dataclass(frozen=True)
class _World:
    dynamics: LearnedDynamics
    cost: Cost
    context: Context
    goal: Goal

    def imagine(self, plans: Plans) -> Imagined:
        return self.dynamics.rollout(self.context, plans).latents

    def judge(self, states: Imagined, plans: Plans) -> Costs | Scores:
        return self.cost(Rollout(latents=states), plans, self.goal)

    def follow(self, states: Imagined, plans: Plans) -> Imagined:
        """Every state and action of each course, with the context before it, in the predictor at once."""
        drop = max(0, self.context.latents.shape[1] - self.dynamics.max_context)
        past, done = self.context.latents[:, drop:], self.context.actions[:, drop:]
        latents = torch.cat([_for_each(past, plans.shape[1]), states[:, :, 1:]], dim=2).flatten(
            0, 1
        )  # (B S, T+H-1, ..)
        actions = torch.cat([_for_each(done, plans.shape[1]), plans], dim=2).flatten(0, 1)
        with evaluating(self.dynamics.predictor):
            after = _predicted(self.dynamics.predictor, latents, self.dynamics.action_map(actions))
        return after[:, -plans.shape[2] :].unflatten(0, plans.shape[:2])


def _predicted(predictor: RollingPredictor, latents: Latents, actions: Tensor) -> Latents:
    """The latents that follow each frame; window by window where positions begin anew in each window."""
    if not (isinstance(predictor, CausalPredictor) and predictor.positions.restarts):
        return predictor(latents, actions)
    frames = latents.shape[1]
    first = [predictor(latents[:, :end], actions[:, :end])[:, -1:] for end in range(1, min(predictor.window, frames))]
    if frames < predictor.window:
        return torch.cat([*first, predictor(latents, actions)[:, -1:]], dim=1)
    windows = latents.unfold(1, predictor.window, 1).movedim(-1, 2)  # (B S, places, window, N, D)
    moves = actions.unfold(1, predictor.window, 1).movedim(-1, 2)
    last = predictor(windows.flatten(0, 1), moves.flatten(0, 1))[:, -1].unflatten(0, windows.shape[:2])
    return torch.cat([*first, last], dim=1)


def _for_each(known: Tensor, candidates: int) -> Tensor:
    """What is known of each world, once for each candidate: `B T ...` -> `B S T ...`."""
    return known[:, None].expand(-1, candidates, *known.shape[1:])
