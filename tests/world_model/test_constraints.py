"""What must not happen in imagined futures."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.costs import PlanCost, last
from jepa_mpc.planners import cem, gradient
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, Goal, PlanRequest, PlanStatus, Rollout, Scores
from jepa_mpc.world_model.costs.constraints import ConstrainedCost, broken_down, joined
from jepa_mpc.world_model.costs.goal import GoalDistance
from jepa_mpc.world_model.costs.terms import RangeLimit

GOAL = Goal(latents=torch.full((2, 1, 2), 2.0))
LIMIT = RangeLimit(low=(-1.0,), high=(1.0,), axes=(0,))


def imagined(plans: torch.Tensor) -> Rollout:
    """A point whose place is its state and its proprioception."""
    places = plans.cumsum(dim=2)
    return Rollout(latents=places[..., None, :], proprio=places)


def test_the_worst_step_of_each_bound_is_read():
    rollout = Rollout(latents=torch.zeros(1, 1, 3, 1, 1), proprio=torch.tensor([[[[0.5], [-4.0], [3.0]]]]))
    limit = RangeLimit(low=(-1.0,), high=(1.0,), axes=(0,), unit=2.0)
    cost = ConstrainedCost(PlanCost(GoalDistance()), limits={"place": limit})
    readings = cost(rollout, torch.zeros(1, 1, 3, 1), Goal(latents=torch.zeros(1, 1, 1))).readings
    assert readings.tolist() == [[[1.5, 1.0]]]


@pytest.mark.parametrize("planner", [cem(), gradient()])
def test_planners_keep_the_limit_and_go_as_far_as_it_allows(planner):
    cost = ConstrainedCost(PlanCost(GoalDistance(), last), limits={"place": LIMIT})

    def evaluate(plans):
        return cost(imagined(plans), plans, GOAL)

    request = PlanRequest(
        evaluate=evaluate,
        box=ActionBox(low=-torch.ones(2), high=torch.ones(2)),
        batch=2,
        horizon=4,
        generator=generator(0),
    )
    result = planner.plan(request)
    places = result.actions.cumsum(dim=1)
    assert (places[..., 0].abs() <= 1).all() and PlanStatus.INFEASIBLE not in result.status
    assert (places[:, -1, 0] > 0.9).all() and (places[:, -1, 1] > 1.8).all()


def test_chunks_are_joined_and_broken_futures_cost_infinity():
    part = Scores(costs=torch.ones(1, 2), readings=torch.zeros(1, 2, 3))
    whole = joined([part, part])
    assert isinstance(whole, Scores) and whole.costs.shape == (1, 4) and whole.readings.shape == (1, 4, 3)
    spoiled = broken_down(part, torch.tensor([[True, False]]))
    assert isinstance(spoiled, Scores) and spoiled.costs.tolist() == [[1.0, torch.inf]]


def test_a_rollout_without_the_quantity_is_refused():
    rollout = Rollout(latents=torch.zeros(1, 1, 3, 1, 1))
    with pytest.raises(ValueError, match="predicted proprio, the rollout carries none"):
        LIMIT.readings(rollout, torch.zeros(1, 1, 3, 1), GOAL)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="one length"):
        RangeLimit(low=(0.0, 0.0), high=(1.0, 1.0), axes=(0,))
    with pytest.raises(ValueError, match="low < high"):
        RangeLimit(low=(1.0,), high=(0.0,), axes=(0,))
    with pytest.raises(ValueError, match="at least one limit"):
        ConstrainedCost(PlanCost(GoalDistance()), limits={})
