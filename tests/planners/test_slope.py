"""Downhill by slopes fitted to the costs of a round."""

from __future__ import annotations

import math

import pytest
import torch

from jepa_mpc.planners import Gaussian, SlopeRefit, cem, slope
from jepa_mpc.planners.slope import DescentState
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, PlanRequest


def far_goals(seed: int) -> PlanRequest:
    """Eight worlds whose goals lie beyond what a bounded speed reaches in time: the best plans lie on the box."""
    goals = 0.25 * torch.randn(8, 3, generator=generator(3))
    edge = torch.full((3,), 0.05)

    def evaluate(plans: torch.Tensor) -> torch.Tensor:
        places = plans.cumsum(dim=2)  # (B, S, H, 3)
        return (places - goals[:, None, None]).square().sum(dim=-1).mean(dim=-1)

    box = ActionBox(low=-edge, high=edge)
    return PlanRequest(evaluate=evaluate, box=box, batch=8, horizon=8, generator=generator(seed))


def test_the_slope_of_a_plane_is_found_to_the_digit():
    normal = torch.randn(1, 3, 2, generator=generator(0))
    plans = torch.randn(1, 20, 3, 2, generator=generator(1))
    costs = (plans * normal[:, None]).sum(dim=(-2, -1))
    walk = SlopeRefit(ridge=1e-6, memory=(0.0, 0.0))(Gaussian(torch.zeros(1, 3, 2), torch.ones(1, 3, 2)), plans, costs)
    assert isinstance(walk, DescentState)
    torch.testing.assert_close(walk.slope * walk.scale, normal.flatten(1), rtol=1e-3, atol=1e-4)
    assert torch.equal(walk.slope.sign(), (walk.base - walk.mean.flatten(1)).sign())


def test_steps_grow_with_success_and_shrink_without():
    refit, plans = SlopeRefit(ridge=0.01), torch.randn(2, 8, 3, 2, generator=generator(0))
    costs = torch.rand(2, 8, generator=generator(1))
    first = refit(Gaussian(torch.zeros(2, 3, 2), torch.ones(2, 3, 2)), plans, costs)
    second = refit(first, plans, costs - torch.tensor([[1.0], [0.0]]))
    assert isinstance(first, DescentState) and isinstance(second, DescentState)
    torch.testing.assert_close(second.radius / first.radius, torch.tensor([[1.1], [0.85]]))


def test_broken_plans_and_rounds_teach_nothing():
    refit, plans = SlopeRefit(ridge=0.01), torch.randn(1, 8, 3, 2, generator=generator(0))
    costs = torch.rand(1, 8, generator=generator(1))
    broken = costs.clone()
    broken[:, 5:] = math.inf
    wild = plans.clone()
    wild[:, 5:] = 1e6
    old = Gaussian(torch.zeros(1, 3, 2), torch.ones(1, 3, 2))
    assert torch.equal(refit(old, plans, broken).mean, refit(old, wild, broken).mean)
    first = refit(old, plans, costs)
    lost = refit(first, plans, torch.full((1, 8), math.inf))
    assert isinstance(first, DescentState) and isinstance(lost, DescentState) and torch.equal(first.radius, lost.radius)


def test_a_third_of_the_evaluations_reaches_what_cross_entropy_does():
    """Mean over eight worlds and two seeds; a tenth of them comes within five per cent."""
    theirs = cem(num_samples=300, num_elites=30, num_iterations=30, min_std=0.0, momentum=0.0)
    results = [slope(num_iterations=93).plan(far_goals(seed)) for seed in (0, 1)]
    cost = torch.stack([theirs.plan(far_goals(seed)).cost for seed in (0, 1)]).mean()
    assert 3 * results[0].evaluations <= 9000
    assert torch.stack([result.cost for result in results]).mean() <= cost
    assert torch.stack([result.trace[27] for result in results]).mean() <= 1.05 * cost  # 28 rounds: 896 evaluations


@pytest.mark.parametrize("wrong", [{"start": 0.0}, {"shrink": 0.0}, {"grow": 0.9}, {"memory": (1.0, 0.5)}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="need"):
        SlopeRefit(**{"ridge": 0.01, **wrong})
