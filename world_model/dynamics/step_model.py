"""Step models of learned dynamics, for planners that search over states."""

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
    """The step model of learned dynamics, a cost and a goal, from a context on.

    A step uses the context and the earlier states of the same trajectory, as the predictor does in a rollout: applied
    to the states of a rollout, `follow` reproduces them.

    Args:
        dynamics: The learned dynamics; their states must be latents only.
        cost: The cost to minimise.
        context: Past states and actions.
        goal: The goal.

    Raises:
        ValueError: If the predictor carries proprioception, which the searched states would lack.
    """
    if dynamics.predictor.proprio is not None:
        raise ValueError(
            "a search over states needs latents that hold the whole state, but this predictor carries proprioception "
            "beside them; use a planner that searches over actions alone"
        )
    world = _World(dynamics, cost, context, goal)
    return StepModel(
        start=context.latents[:, -1], follow=world.follow, imagine=world.imagine, judge=world.judge, goal=goal.latents
    )


def known_steps(dynamics: Dynamics, cost: Cost, *, context: Context, goal: Goal) -> StepModel | None:
    """The step model if the dynamics have one (learned ones whose states are latents only), else None."""
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
        """Apply the predictor to every state and action of each trajectory in parallel, preceded by the context."""
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
    """The latents after each frame; window by window if positions restart in each window."""
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
    """Repeat a tensor for each candidate: `B T ...` -> `B S T ...`."""
    return known[:, None].expand(-1, candidates, *known.shape[1:])
