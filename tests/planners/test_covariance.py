"""Covariance matrix adaptation."""

from __future__ import annotations

import math

import pytest
import torch

from jepa_mpc.planners import CovarianceRefit, Gaussian, cem, cma
from jepa_mpc.planners.covariance import Correlated
from jepa_mpc.planners.problems import Detour, double_integrator, request_for
from jepa_mpc.seeding import generator


def learn(cost, rounds: int = 60, size: int = 24) -> Correlated:
    """The distribution after some rounds on a cost of plans `B S 2 1`."""
    seeded, refit = generator(0), CovarianceRefit()
    gaussian: Gaussian = Gaussian(torch.zeros(1, 2, 1), torch.ones(1, 2, 1))
    for _ in range(rounds):
        plans = gaussian.around(torch.randn(1, size, 2, 1, generator=seeded))
        gaussian = refit(gaussian, plans, cost(plans))
    assert isinstance(gaussian, Correlated)
    return gaussian


def test_it_learns_the_valley_of_a_cost():
    """A valley along (1, -1), forty times as steep across: the covariance lines up with it."""

    def valley(plans: torch.Tensor) -> torch.Tensor:
        first, second = plans[..., 0, 0], plans[..., 1, 0]
        return 40 * (first + second - 1).square() + (first - second).square()

    found = learn(valley, rounds=25)
    correlation = found.covariance[0, 0, 1] / (found.covariance[0, 0, 0] * found.covariance[0, 1, 1]).sqrt()
    assert correlation < -0.8
    torch.testing.assert_close(found.covariance.diagonal(dim1=1, dim2=2).mean(), torch.tensor(1.0), rtol=1e-4, atol=0.0)


def test_the_root_is_that_of_the_covariance():
    found = learn(lambda plans: plans.square().sum(dim=(-2, -1)), rounds=10)
    torch.testing.assert_close(found.root @ found.root.mT, found.covariance, rtol=1e-3, atol=1e-3)


def test_it_reaches_what_a_spread_per_entry_does_not():
    """A third of the evaluations, and nearer to the optimum, where pushes at different times make up for each other."""
    problem = double_integrator(torch.tensor([[1.0, -0.5, 0.2, 0.0]]), torch.zeros(1, 2), horizon=12)
    ours = cma(num_samples=32, num_iterations=94).plan(request_for(problem, generator(0)))
    theirs = cem(num_samples=300, num_elites=30, num_iterations=30).plan(request_for(problem, generator(0)))
    assert 2.99 * ours.evaluations < theirs.evaluations
    assert ours.cost < theirs.cost


def test_two_ways_round_an_obstacle_are_no_trap():
    problem = Detour(start=torch.tensor([[-1.5, 0.0]]), goal=torch.tensor([[1.5, 0.0]]), obstacle=torch.zeros(2))
    assert cma(num_iterations=60).plan(request_for(problem, generator(0))).cost < 0.1


def test_broken_plans_teach_nothing():
    """Plans without a finite cost may lie anywhere: the distribution is that of the others."""
    plans = torch.randn(1, 20, 3, 2, generator=generator(0))
    costs = plans.square().sum(dim=(-2, -1))
    costs[:, 12:] = math.inf
    wild = plans.clone()
    wild[:, 12:] = 1e6
    old = Gaussian(torch.zeros(1, 3, 2), torch.ones(1, 3, 2))
    calm, other = (CovarianceRefit()(old, given, costs) for given in (plans, wild))
    assert torch.equal(calm.mean, other.mean) and torch.equal(calm.std, other.std)


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(ValueError, match="share"):
        CovarianceRefit(share=share)
