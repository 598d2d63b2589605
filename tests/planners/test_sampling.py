"""The sampling loop and its parts."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from jepa_mpc.planners import (
    BestRefit,
    ColouredNoise,
    EliteRefit,
    Gaussian,
    SamplingPlanner,
    SoftmaxRefit,
    WhiteNoise,
    cem,
    random_shooting,
)
from jepa_mpc.planners.problems import Multimodal, Quadratic, double_integrator, request_for
from jepa_mpc.planners.search import opening
from jepa_mpc.seeding import generator
from jepa_mpc.types import PlanStatus


def bowl(worlds: int = 2) -> Quadratic:
    target = torch.randn(worlds, 4, 3, generator=generator(0, "target"))
    return Quadratic(target=target, scale=torch.ones(4, 3))


def test_elites_are_fitted_as_numpy_would():
    plans = torch.randn(2, 10, 4, 3, generator=generator(0))
    costs = torch.rand(2, 10, generator=generator(1))
    old = Gaussian(torch.zeros(2, 4, 3), torch.ones(2, 4, 3))
    new = EliteRefit(num_elites=3, momentum=0.25, correction=1)(old, plans, costs)
    for world in range(2):
        elites = plans[world, costs[world].argsort()[:3]]
        torch.testing.assert_close(new.mean[world], 0.75 * elites.mean(dim=0))
        torch.testing.assert_close(new.std[world], 0.25 + 0.75 * elites.std(dim=0))


@pytest.mark.parametrize("refit", [EliteRefit(num_elites=4), SoftmaxRefit(temperature=0.1), BestRefit()])
def test_a_refit_without_a_valid_plan_changes_nothing(refit):
    old = Gaussian(torch.full((1, 4, 3), 0.5), torch.full((1, 4, 3), 0.25))
    new = refit(old, torch.randn(1, 8, 4, 3, generator=generator(0)), torch.full((1, 8), math.inf))
    torch.testing.assert_close(new.mean, old.mean)
    torch.testing.assert_close(new.std, old.std)


def test_invalid_plans_never_enter_the_elites():
    plans = torch.zeros(1, 8, 1, 1)
    plans[0, 5:] = 100.0
    costs = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, math.inf, math.inf, math.inf]])
    old = Gaussian(torch.ones(1, 1, 1), torch.ones(1, 1, 1))
    for refit in (EliteRefit(num_elites=8), SoftmaxRefit(temperature=1.0)):
        assert refit(old, plans, costs).mean.abs().max() == 0


def test_a_cold_softmax_follows_the_best_plan():
    plans = torch.randn(1, 8, 2, 2, generator=generator(0))
    costs = torch.rand(1, 8, generator=generator(1))
    old = Gaussian(torch.zeros(1, 2, 2), torch.ones(1, 2, 2))
    new = SoftmaxRefit(temperature=1e-4)(old, plans, costs)
    torch.testing.assert_close(new.mean[0], plans[0, costs[0].argmin()])


@pytest.mark.parametrize("horizon", [2, 5, 12])
@pytest.mark.parametrize("noise", [WhiteNoise(), ColouredNoise(beta=0.0), ColouredNoise(beta=2.0)])
def test_noise_has_unit_variance(noise, horizon):
    drawn = noise((4, 2000, horizon, 2), generator(0), torch.zeros(()))
    assert abs(drawn.square().mean().sqrt() - 1) < 0.03
    assert abs(drawn.mean()) < 0.03


def test_red_noise_is_smooth_in_time():
    drawn = ColouredNoise(beta=2.0)((4, 500, 12, 2), generator(0), torch.zeros(()))
    assert (drawn[:, :, 1:] * drawn[:, :, :-1]).mean() > 0.5


def test_the_mean_is_always_tried():
    means, firsts = [], []

    class Watch:
        min_samples = 8

        def __call__(self, old, plans, costs):
            firsts.append(plans[:, 0].clone())
            new = EliteRefit(num_elites=8)(old, plans, costs)
            means.append(new.mean)
            return new

    SamplingPlanner(refit=Watch(), num_samples=32, num_iterations=4, initial_std=0.5).plan(
        request_for(bowl(), generator(0))
    )
    assert all(torch.equal(tried, mean) for tried, mean in zip(firsts[1:], means[:-1], strict=True))


def test_kept_plans_are_tried_again():
    seen = []
    problem = bowl()

    def evaluate(plans):
        seen.append(plans)
        return problem.evaluate(plans)

    request = dataclasses.replace(request_for(problem, generator(0)), evaluate=evaluate)
    SamplingPlanner(refit=EliteRefit(num_elites=8), num_samples=32, num_iterations=2, initial_std=0.5, num_kept=3).plan(
        request
    )
    order = problem.evaluate(seen[0]).argsort(dim=1)[:, :3]
    assert torch.equal(seen[1][0, 1:4], seen[0][0, order[0]])


def test_every_round_has_the_same_shape_and_the_spread_keeps_its_floor():
    shapes = set()

    def evaluate(plans):
        shapes.add(tuple(plans.shape))
        return plans.sum(dim=(-2, -1)) * 0

    request = dataclasses.replace(request_for(bowl(), generator(0)), evaluate=evaluate)
    result = cem(num_samples=16, num_elites=2, num_iterations=20, min_std=0.05).plan(request)
    assert shapes == {(2, 16, 4, 3)}
    assert result.status == (PlanStatus.CONVERGED, PlanStatus.CONVERGED)


def test_a_single_sample_and_elites_equal_to_samples_work():
    assert random_shooting(num_samples=1).plan(request_for(bowl(), generator(0))).cost.isfinite().all()
    planner = cem(num_samples=8, num_elites=8, min_std=0.1)
    assert planner.plan(request_for(bowl(), generator(0))).cost.isfinite().all()


def test_cross_entropy_finds_the_least_of_many_minima():
    problem = Multimodal(target=torch.full((2, 3, 2), 0.8))
    planner = cem(num_samples=400, num_elites=40, num_iterations=25, min_std=0.0)
    assert planner.plan(request_for(problem, generator(0))).cost.max() < 1e-3


def test_nine_in_ten_invalid_costs_cost_no_more_than_having_a_tenth_of_the_samples():
    start = torch.tensor([[1.0, -0.5, 0.2, 0.0]])
    problem = double_integrator(start.expand(4, -1), torch.zeros(4, 2), horizon=6)
    stream = generator(0, "storm")

    def storm(evaluate):
        return lambda plans: torch.where(torch.rand(plans.shape[:2], generator=stream) < 0.9, math.nan, evaluate(plans))

    sick = cem(num_samples=640, num_elites=80).plan(request_for(problem, generator(0), wrap=storm)).cost.mean()
    clean = cem(num_samples=64, num_elites=8).plan(request_for(problem, generator(0))).cost.mean()
    assert sick < 1.1 * clean


@pytest.mark.parametrize(
    "settings",
    [
        {"num_samples": 8, "num_elites": 9},
        {"num_elites": 0},
        {"num_iterations": 0},
        {"initial_std": 0.0},
        {"min_std": -1.0},
        {"momentum": 1.0},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="need"):
        cem(**settings)


def test_too_many_candidates_are_refused():
    request = dataclasses.replace(request_for(bowl(), generator(0)), candidates=torch.zeros(2, 9, 4, 3))
    with pytest.raises(ValueError, match="do not fit"):
        opening(request, 9)
    assert opening(request, 10).shape == (2, 10, 4, 3)
