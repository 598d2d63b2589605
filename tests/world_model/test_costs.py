"""Costs of imagined futures: step costs, and their reduction over the plan."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.costs import Discounted, MeanAndEnd, PlanCost, WeightedSum, last, mean
from jepa_mpc.envs.costs import SensorCost, apart, squared, task_cost
from jepa_mpc.seeding import generator
from jepa_mpc.types import Goal, Rollout
from jepa_mpc.world_model.costs.goal import GoalDistance, PositionDistance, absolute, euclidean
from jepa_mpc.world_model.costs.terms import ActionRate, Disagreement, Effort, RangeLimit

LATENTS = torch.randn(2, 5, 4, 3, 6, generator=generator(0), dtype=torch.float64)
PLANS = torch.randn(2, 5, 4, 7, generator=generator(1), dtype=torch.float64)
GOAL = Goal(latents=torch.randn(2, 3, 6, generator=generator(2), dtype=torch.float64))
ROLLOUT = Rollout(latents=LATENTS)
STEPS = torch.rand(2, 5, 4, generator=generator(3), dtype=torch.float64)


def test_every_reduction_makes_one_number_of_the_steps():
    torch.testing.assert_close(mean(STEPS), STEPS.sum(-1) / 4)
    assert torch.equal(last(STEPS), STEPS[..., 3])
    torch.testing.assert_close(MeanAndEnd(0.5)(STEPS), mean(STEPS) + 0.5 * STEPS[..., 3])
    torch.testing.assert_close(Discounted(0.9)(STEPS), sum(0.9**h * STEPS[..., h] for h in range(4)))
    torch.testing.assert_close(Discounted(0.9).after(STEPS[..., 0], 4), 0.9**4 * STEPS[..., 0])
    with pytest.raises(ValueError, match="at_end >= 0"):
        MeanAndEnd(-1.0)


@pytest.mark.parametrize("reduction", [mean, last, MeanAndEnd(2.0), Discounted(0.8)])
def test_a_step_that_comes_in_parts_costs_their_mean(reduction):
    parts = torch.rand(2, 5, 4, 7, generator=generator(4), dtype=torch.float64)
    torch.testing.assert_close(reduction(parts), reduction(parts.mean(dim=-1)))


def test_the_distance_of_one_token_is_the_summed_square():
    goal = Goal(latents=GOAL.latents[:, :1])
    cost = PlanCost(GoalDistance(), last)(Rollout(latents=LATENTS[..., :1, :]), PLANS, goal)
    torch.testing.assert_close(cost[1, 3], (LATENTS[1, 3, -1, 0] - GOAL.latents[1, 0]).square().sum())


def test_the_mean_counts_every_step_of_the_plan():
    each = [PlanCost(GoalDistance(), last)(Rollout(latents=LATENTS[:, :, : h + 1]), PLANS, GOAL) for h in range(4)]
    torch.testing.assert_close(PlanCost(GoalDistance())(ROLLOUT, PLANS, GOAL), torch.stack(each).mean(dim=0))


@pytest.mark.parametrize(
    "step",
    [
        GoalDistance(),
        Effort(),
        ActionRate(),
        Disagreement(),
        RangeLimit(low=(-0.1,), high=(0.1,), axes=(0,)),
        SensorCost(apart((0, 1))),
    ],
)
def test_the_end_costs_what_the_last_step_costs_though_no_other_is_compared(step):
    rollout = Rollout(latents=LATENTS, proprio=LATENTS[..., 0, :], sensors=LATENTS[..., 1, :], disagreement=STEPS)
    goal = Goal(latents=GOAL.latents, sensors=GOAL.latents[:, 0])
    torch.testing.assert_close(PlanCost(step, last)(rollout, PLANS, goal), last(step(rollout, PLANS, goal)))


@pytest.mark.parametrize("step", [GoalDistance(), GoalDistance(distance=absolute), GoalDistance(distance=euclidean)])
def test_the_goal_itself_costs_nothing_and_has_a_finite_slope(step):
    latents = GOAL.latents[:, None, None].expand(2, 5, 4, 3, 6).clone().requires_grad_()
    value = PlanCost(step)(Rollout(latents=latents), PLANS, GOAL)
    (slope,) = torch.autograd.grad(value.sum(), latents)
    assert value.shape == (2, 5) and value.abs().max() == 0 and slope.isfinite().all()


def test_a_metric_measures_in_its_own_space():
    head = torch.nn.Sequential(torch.nn.Flatten(-2), torch.nn.Linear(18, 2, dtype=torch.float64))
    cost = PlanCost(GoalDistance(metric=head, distance=euclidean), last)(ROLLOUT, PLANS, GOAL)
    gap = head(LATENTS[:, :, -1]) - head(GOAL.latents)[:, None]
    torch.testing.assert_close(cost, gap.norm(dim=-1))


def test_a_known_position_of_the_goal_counts_before_its_picture():
    def head(latents):
        return latents[..., 0, :3]

    step, place = PositionDistance(head), torch.ones(2, 3, dtype=torch.float64)
    seen, told = step(ROLLOUT, PLANS, GOAL), step(ROLLOUT, PLANS, Goal(latents=GOAL.latents, position=place))
    torch.testing.assert_close(seen, (head(LATENTS) - head(GOAL.latents)[:, None, None]).square().sum(-1))
    torch.testing.assert_close(told, (head(LATENTS) - 1).square().sum(-1))


@pytest.mark.parametrize("step", [GoalDistance(), Effort(), ActionRate()])
def test_gradients_agree_with_finite_differences(step):
    latents, plans = LATENTS.clone().requires_grad_(), PLANS.clone().requires_grad_()
    cost = PlanCost(step)
    assert torch.autograd.gradcheck(
        lambda x, y: cost(Rollout(latents=x), y, GOAL) + 0 * y.sum() + 0 * x.sum(), (latents, plans)
    )


def test_sensors_are_compared_where_asked():
    sensors = torch.zeros(2, 5, 4, 3)
    sensors[1, 2, :, 1] = 2.0
    sensors[..., 2] = 100.0
    rollout, goal = Rollout(latents=LATENTS, sensors=sensors), Goal(latents=GOAL.latents, sensors=torch.zeros(2, 3))
    cost = task_cost(apart((0, 1)))(rollout, PLANS, goal)
    assert cost[1, 2] == 2.0 and cost.sum() == pytest.approx(2.0, abs=1e-4)
    assert task_cost(squared)(rollout, PLANS, goal)[1, 2] == 10_004.0


def test_the_end_of_a_task_counts_more_and_its_effort_does_not():
    rollout = Rollout(latents=LATENTS, sensors=torch.tensor([0.0, 0.0, 0.0, 4.0])[:, None].expand(2, 5, 4, 1))
    goal = Goal(latents=GOAL.latents, sensors=torch.zeros(2, 1))
    cost = task_cost(lambda now, goal: now[..., 0], at_end=0.5, effort=0.1)(rollout, torch.ones(2, 5, 4, 7), goal)
    torch.testing.assert_close(cost, torch.full((2, 5), 1.0 + 0.5 * 4.0 + 0.1 * 7.0))
    with pytest.raises(ValueError, match="effort >= 0"):
        task_cost(squared, effort=-1.0)


def test_sensors_that_are_lacking_are_named():
    with pytest.raises(ValueError, match="rollout carries no sensors"):
        task_cost(squared)(ROLLOUT, PLANS, GOAL)
    with pytest.raises(ValueError, match="goal carries no sensors"):
        task_cost(squared)(Rollout(latents=LATENTS, sensors=torch.zeros(2, 5, 4, 3)), PLANS, GOAL)


def test_effort_is_counted_in_shares_of_its_scale():
    scale = torch.tensor([0.1, 0.0])
    plans = torch.tensor([0.1, 5.0]).expand(1, 1, 3, 2)
    assert PlanCost(Effort(scale=scale))(ROLLOUT, plans, GOAL).item() == pytest.approx(0.5)


def test_the_first_action_changes_nothing_and_a_steady_plan_costs_nothing():
    plans = torch.ones(1, 2, 3, 2)
    plans[0, 1, 1] = 2.0
    steady, jerky = ActionRate()(ROLLOUT, plans, GOAL).mean(dim=-1)[0].tolist()
    assert steady == [0.0, 0.0, 0.0] and jerky == [0.0, 1.0, 1.0]
    assert ActionRate(scale=torch.tensor([2.0, 0.0]))(ROLLOUT, plans, GOAL)[0, 1, 1].tolist() == [0.25, 0.0]
    assert ActionRate()(ROLLOUT, plans[:, :, :1], GOAL).abs().max() == 0


def test_a_weighted_sum_is_the_sum_of_its_terms():
    total = WeightedSum({"goal": (2.0, PlanCost(GoalDistance())), "effort": (0.5, PlanCost(Effort()))})
    terms = total.terms(ROLLOUT, PLANS, GOAL)
    torch.testing.assert_close(terms["goal"], 2 * PlanCost(GoalDistance())(ROLLOUT, PLANS, GOAL))
    torch.testing.assert_close(total(ROLLOUT, PLANS, GOAL), terms["goal"] + terms["effort"])


def test_wrong_goals_and_settings_are_refused():
    with pytest.raises(ValueError, match="shape"):
        GoalDistance()(ROLLOUT, PLANS, Goal(latents=torch.zeros(2, 3, 5)))
    with pytest.raises(ValueError, match="at least one"):
        WeightedSum({})
