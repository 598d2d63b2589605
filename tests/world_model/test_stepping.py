"""A learned world one step at a time."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.optim import Adam

from jepa_mpc.costs import PlanCost, last
from jepa_mpc.encoders.layers.blocks import GatedModulation
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.planners import LiftedPlanner
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, Context, Goal, PlanRequest
from jepa_mpc.world_model.costs.goal import GoalDistance
from jepa_mpc.world_model.dynamics.learned import LearnedDynamics
from jepa_mpc.world_model.dynamics.step_model import known_steps, step_model
from jepa_mpc.world_model.parts.actions import ActionEncoder
from jepa_mpc.world_model.parts.predictors.causal import CausalPredictor, ProprioStream, ResidualOutput
from jepa_mpc.world_model.parts.predictors.frame_positions import RotaryPositions, WindowPositions
from jepa_mpc.world_model.parts.predictors.trunk import ConditionedTransformer, TrunkSizes

N, D, A = 2, 12, 3


def world(*, restarts: bool = False, window: int = 3, proprio: bool = False) -> LearnedDynamics:
    sizes = TrunkSizes(width=16, depth=2, heads=2, head_dim=8, mlp_dim=32)
    positions = (
        WindowPositions(window=window, width=D, num_tokens=N)
        if restarts
        else RotaryPositions(window=window, head_dim=8, width=D, num_tokens=N)
    )
    predictor = CausalPredictor(
        trunk=ConditionedTransformer(D, sizes=sizes, output_dim=16, modulation_init=GatedModulation()),
        action_encoder=ActionEncoder(A, width=D),
        positions=positions,
        output=ResidualOutput(16, state_dim=D, scale=1.0),
        proprio=ProprioStream(torch.ones(2), cond_dim=D, raw_dim=16) if proprio else None,
    )
    draw_weights(predictor, generator(0))
    return LearnedDynamics(predictor.requires_grad_(False), max_context=window)


def past(frames: int) -> tuple[Context, Goal]:
    draw = generator(1, frames)
    latents = torch.randn(2, frames, N, D, generator=draw)
    context = Context(latents=latents, actions=torch.randn(2, frames - 1, A, generator=draw))
    return context, Goal(latents=torch.randn(2, N, D, generator=draw))


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("horizon", [1, 2, 6])
def test_a_course_that_the_world_took_is_followed_again(restarts, frames, horizon):
    context, goal = past(frames)
    steps = step_model(world(restarts=restarts), PlanCost(GoalDistance()), context=context, goal=goal)
    plans = torch.randn(2, 4, horizon, A, generator=generator(2))
    after = steps.imagine(plans)
    before = torch.cat([steps.start[:, None, None].expand(-1, 4, 1, -1, -1), after[:, :, :-1]], dim=2)
    torch.testing.assert_close(steps.follow(before, plans), after, rtol=1e-5, atol=1e-5)


def test_a_change_of_one_state_reaches_no_earlier_step():
    context, goal = past(2)
    steps = step_model(world(), PlanCost(GoalDistance()), context=context, goal=goal)
    plans = torch.randn(2, 3, 5, A, generator=generator(2))
    states = torch.randn(2, 3, 5, N, D, generator=generator(3))
    moved = states.clone()
    moved[:, :, 3] += 1
    one, other = steps.follow(states, plans), steps.follow(moved, plans)
    assert torch.equal(one[:, :, :3], other[:, :, :3])
    assert (one[:, :, 3:] != other[:, :, 3:]).any(dim=-1).all()


def test_the_lifted_planner_searches_a_learned_world():
    """The goal is where a plan of 8 steps leads: the lifted search brings the cost far below standing still."""
    dynamics = world()
    context, goal = past(3)
    wanted = dynamics.rollout(context, 0.7 * torch.randn(2, 1, 8, A, generator=generator(5))).latents[:, 0, -1]
    goal = Goal(latents=wanted)
    cost = PlanCost(GoalDistance(), last)

    def evaluate(plans):
        return cost(dynamics.rollout(context, plans), plans, goal)

    request = PlanRequest(
        evaluate=evaluate,
        box=ActionBox(low=-torch.ones(A), high=torch.ones(A)),
        batch=2,
        horizon=8,
        generator=generator(0),
        steps=step_model(dynamics, cost, context=context, goal=goal),
    )
    still = evaluate(torch.zeros(2, 1, 8, A))[:, 0]
    planner = LiftedPlanner(
        num_starts=6,
        num_rounds=2,
        num_steps=6,
        optimiser=partial(Adam, lr=0.1),
        state_optimiser=partial(Adam, lr=0.005),
        weight=100.0,
        state_gradient=0.0,
    )
    result = planner.plan(request)
    assert (result.cost < 0.35 * still).all()
    torch.testing.assert_close(evaluate(result.actions[:, None])[:, 0], result.cost)


def test_states_beside_the_latents_are_refused():
    context, goal = past(2)
    with pytest.raises(ValueError, match="proprioception"):
        step_model(world(proprio=True), PlanCost(GoalDistance()), context=context, goal=goal)
    assert known_steps(world(proprio=True), PlanCost(GoalDistance()), context=context, goal=goal) is None
    assert known_steps(world(), PlanCost(GoalDistance()), context=context, goal=goal) is not None
