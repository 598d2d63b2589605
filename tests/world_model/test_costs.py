"""Costs of imagined futures."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.seeding import generator
from jepa_mpc.types import Goal, Rollout
from jepa_mpc.world_model.costs.goal import (
    Effort,
    GoalDistance,
    SensorGoalDistance,
    Smoothness,
    WeightedSum,
    absolute,
    euclidean,
)

LATENTS = torch.randn(2, 5, 4, 3, 6, generator=generator(0), dtype=torch.float64)
PLANS = torch.randn(2, 5, 4, 7, generator=generator(1), dtype=torch.float64)
GOAL = Goal(latents=torch.randn(2, 3, 6, generator=generator(2), dtype=torch.float64))
ROLLOUT = Rollout(latents=LATENTS)


def test_the_distance_of_one_token_is_the_summed_square():
    goal = Goal(latents=GOAL.latents[:, :1])
    cost = GoalDistance(steps="last")(Rollout(latents=LATENTS[..., :1, :]), PLANS, goal)
    torch.testing.assert_close(cost[1, 3], (LATENTS[1, 3, -1, 0] - GOAL.latents[1, 0]).square().sum())


def test_all_steps_count_the_mean_over_the_plan():
    each = [GoalDistance(steps="last")(Rollout(latents=LATENTS[:, :, : h + 1]), PLANS, GOAL) for h in range(4)]
    torch.testing.assert_close(GoalDistance(steps="all")(ROLLOUT, PLANS, GOAL), torch.stack(each).mean(dim=0))


@pytest.mark.parametrize("cost", [GoalDistance(), GoalDistance(distance=absolute), GoalDistance(distance=euclidean)])
def test_the_goal_itself_costs_nothing_and_has_a_finite_slope(cost):
    latents = GOAL.latents[:, None, None].expand(2, 5, 4, 3, 6).clone().requires_grad_()
    value = cost(Rollout(latents=latents), PLANS, GOAL)
    (slope,) = torch.autograd.grad(value.sum(), latents)
    assert value.shape == (2, 5) and value.abs().max() == 0 and slope.isfinite().all()


def test_a_metric_measures_in_its_own_space():
    head = torch.nn.Sequential(torch.nn.Flatten(-2), torch.nn.Linear(18, 2, dtype=torch.float64))
    cost = GoalDistance(steps="last", metric=head, distance=euclidean)(ROLLOUT, PLANS, GOAL)
    gap = head(LATENTS[:, :, -1]) - head(GOAL.latents)[:, None]
    torch.testing.assert_close(cost, gap.norm(dim=-1))


@pytest.mark.parametrize("cost", [GoalDistance(), Effort(), Smoothness()])
def test_gradients_agree_with_finite_differences(cost):
    latents, plans = LATENTS.clone().requires_grad_(), PLANS.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, y: cost(Rollout(latents=x), y, GOAL) + 0 * y.sum() + 0 * x.sum(), (latents, plans)
    )


def test_sensors_are_compared_where_asked():
    sensors = torch.zeros(2, 5, 4, 3)
    sensors[1, 2, :, 1] = 2.0
    sensors[..., 2] = 100.0
    rollout, goal = Rollout(latents=LATENTS, sensors=sensors), Goal(latents=GOAL.latents, sensors=torch.zeros(2, 3))
    cost = SensorGoalDistance(sensors=(0, 1))(rollout, PLANS, goal)
    assert cost[1, 2] == 4.0 and cost.sum() == 4.0


def test_sensors_that_are_lacking_are_named():
    with pytest.raises(ValueError, match="rollout carries no sensors"):
        SensorGoalDistance()(ROLLOUT, PLANS, GOAL)
    with pytest.raises(ValueError, match="goal carries no sensors"):
        SensorGoalDistance()(Rollout(latents=LATENTS, sensors=torch.zeros(2, 5, 4, 3)), PLANS, GOAL)


def test_effort_is_counted_in_shares_of_its_scale():
    scale = torch.tensor([0.1, 0.0])
    plans = torch.tensor([0.1, 5.0]).expand(1, 1, 3, 2)
    assert Effort(scale=scale)(ROLLOUT, plans, GOAL).item() == pytest.approx(0.5)


def test_a_steady_plan_is_smooth_and_one_step_always_is():
    plans = torch.ones(1, 2, 3, 2)
    plans[0, 1, 1] = 2.0
    steady, jerky = Smoothness()(ROLLOUT, plans, GOAL)[0].tolist()
    assert steady == 0 and jerky == pytest.approx(1.0)
    assert Smoothness()(ROLLOUT, plans[:, :, :1], GOAL).abs().max() == 0


def test_a_weighted_sum_is_the_sum_of_its_terms():
    total = WeightedSum({"goal": (2.0, GoalDistance()), "effort": (0.5, Effort())})
    terms = total.terms(ROLLOUT, PLANS, GOAL)
    torch.testing.assert_close(terms["goal"], 2 * GoalDistance()(ROLLOUT, PLANS, GOAL))
    torch.testing.assert_close(total(ROLLOUT, PLANS, GOAL), terms["goal"] + terms["effort"])


def test_wrong_goals_and_settings_are_refused():
    with pytest.raises(ValueError, match="shape"):
        GoalDistance()(ROLLOUT, PLANS, Goal(latents=torch.zeros(2, 3, 5)))
    with pytest.raises(ValueError, match="steps"):
        GoalDistance(steps="some")
    with pytest.raises(ValueError, match="at least one"):
        WeightedSum({})
