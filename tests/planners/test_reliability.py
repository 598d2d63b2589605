"""Faults that a planner must survive: broken costs, degenerate costs, deadlines, units."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch

from jepa_mpc.planners import PLANNERS, EliteRefit, Gaussian, SamplingPlanner, cem, cma, icem, mppi, slope
from jepa_mpc.planners.covariance import CovarianceRefit
from jepa_mpc.planners.noise import WhiteNoise
from jepa_mpc.planners.problems import double_integrator, request_for
from jepa_mpc.planners.refit import Refit, SoftmaxRefit
from jepa_mpc.planners.slope import SlopeRefit
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, PlanStatus

Evaluate = Callable[[torch.Tensor], torch.Tensor]
FAMILIES = {
    "cem": lambda count: cem(num_samples=count, num_elites=max(1, count // 8)),
    "icem": lambda count: icem(num_samples=count, num_elites=max(1, count // 8), num_kept=min(5, count // 8)),
    "mppi": lambda count: mppi(num_samples=count, num_elites=max(1, count // 4)),
    "cma": lambda count: cma(num_samples=count),
    "slope": lambda count: slope(num_samples=count),
}


def masses(worlds: int = 24, horizon: int = 6):
    start = torch.tensor([[1.0, -0.5, 0.2, 0.0]])
    return double_integrator(start.expand(worlds, -1), torch.zeros(worlds, 2), horizon=horizon)


def storm(share: float, value: float = math.nan) -> Callable[[Evaluate], Evaluate]:
    stream = generator(0, "storm")
    return lambda evaluate: (
        lambda plans: torch.where(torch.rand(plans.shape[:2], generator=stream) < share, value, evaluate(plans))
    )


@pytest.mark.parametrize("valid", [16, 32])
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_nine_in_ten_broken_costs_are_worth_a_tenth_of_the_samples(name, valid):
    """Mean cost over 24 worlds at most 10 % above a clean search with as many valid samples."""
    problem = masses()
    sick = FAMILIES[name](10 * valid).plan(request_for(problem, generator(0), wrap=storm(0.9))).cost.mean()
    clean = FAMILIES[name](valid).plan(request_for(problem, generator(1))).cost.mean()
    assert sick <= 1.1 * clean


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PLANNERS))
def test_a_thousand_plans_under_every_storm_are_finite_and_in_the_box(name):
    problem, bad = masses(8), (math.nan, math.inf, -math.inf)
    planner, request, plans = PLANNERS[name](), request_for(problem, generator(0)), 0
    fallback = torch.full((8, 6, 2), 0.5)
    while plans < 1000:
        for share in (0.01, 0.33, 0.9, 0.97, 1.1):
            asked = request_for(problem, generator(plans), wrap=storm(share, bad[plans % 3]))
            result = planner.plan(dataclasses.replace(asked, fallback=fallback))
            assert result.actions.isfinite().all()
            assert torch.equal(result.actions, request.box.clip(result.actions))
            lost = [state is PlanStatus.NO_VALID for state in result.status]
            assert lost == result.cost.isnan().tolist()
            plans += 8


@pytest.mark.parametrize("refit", [EliteRefit(num_elites=4), SoftmaxRefit(temperature=1.0, std_momentum=0.0)])
@pytest.mark.parametrize("costs", ["equal", "ties", "huge", "tiny"])
def test_degenerate_costs_leave_a_sound_spread(refit: Refit, costs: str):
    _check_spread(refit, costs)


@pytest.mark.parametrize("refit", [CovarianceRefit(), SlopeRefit(ridge=0.01)])
@pytest.mark.parametrize("costs", ["equal", "ties", "huge", "tiny"])
def test_degenerate_costs_leave_a_learning_search_sound(refit: Refit, costs: str):
    _check_spread(refit, costs)


def _check_spread(refit: Refit, kind: str) -> None:
    """Sixty rounds of such costs: the spread stays finite and above its floor."""
    seeded = generator(0)
    gaussian = Gaussian(torch.zeros(2, 3, 2), torch.ones(2, 3, 2))
    for _ in range(60):
        plans = gaussian.around(torch.randn(2, 16, 3, 2, generator=seeded)).clamp(-1, 1)
        plain = torch.rand(2, 16, generator=seeded)
        costs = {"equal": plain * 0, "ties": plain.round(), "huge": plain * 1e30, "tiny": plain * 1e-30}[kind]
        gaussian = refit(gaussian, plans, costs).at_least(torch.tensor([0.01, 0.02]))
        assert gaussian.mean.isfinite().all() and gaussian.std.isfinite().all()
        assert (gaussian.std >= torch.tensor([0.01, 0.02])).all()


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_two_hundred_rounds_without_a_floor_do_no_harm(name):
    """The spread falls to nothing long before: every plan stays finite, and the best one found is kept."""
    planner = dataclasses.replace(FAMILIES[name](32), num_iterations=200, min_std=0.0)
    result = planner.plan(request_for(masses(2), generator(0)))
    least = masses(2).optimum()[1]
    still = masses(2).evaluate(torch.zeros(2, 1, 6, 2))[:, 0]
    assert ((least - 1e-5 <= result.cost) & (result.cost < least + 0.2 * (still - least))).all()
    assert result.actions.isfinite().all() and (result.num_valid == result.evaluations).all()


def _budget_run(name: str, delays: Callable[[int], float], budget_s: float, seed: int):
    """A plan under a clock that the model's delays drive; also the longest call and the warm start's own cost."""
    problem, now, calls = masses(1), [0.0], []

    def slow(plans: torch.Tensor) -> torch.Tensor:
        calls.append(delays(len(calls)))
        now[0] += calls[-1]
        return problem.evaluate(plans)

    warm = problem.optimum()[0] * 0.7
    asked = dataclasses.replace(
        request_for(problem, generator(seed)),
        evaluate=slow,
        warm_start=warm,
        fallback=warm,
        deadline_s=budget_s,
        clock=lambda: now[0],
    )
    return PLANNERS[name]().plan(asked), calls, problem.evaluate(warm[:, None])[:, 0]


def _check_deadlines(name: str, seeds: int) -> None:
    """Late by one call at most, never worse than the warm start, cheaper with more time on average."""
    stalls: dict[str, Callable[[torch.Tensor], Callable[[int], float]]] = {
        "fixed": lambda draws: lambda call: 0.005,
        "lognormal": lambda draws: lambda call: 0.005 * float(draws[call].exp()),
        "stall": lambda draws: lambda call: 0.5 if call == 3 else 0.005,
    }
    for make in stalls.values():
        means = []
        for budget_s in (0.02, 0.05, 0.1, 0.5):
            costs = []
            for seed in range(seeds):
                delays = make(torch.randn(200, generator=generator(seed, "delays")))
                result, calls, least = _budget_run(name, delays, budget_s, seed)
                assert result.seconds <= budget_s + max(calls) + 1e-9
                assert (result.cost <= least).all()
                costs.append(result.cost)
            means.append(float(torch.cat(costs).mean()))
        assert means == sorted(means, reverse=True)


@pytest.mark.parametrize("name", ["cem", "cma", "gradient"])
def test_deadlines_hold_under_slow_and_stalling_models(name):
    _check_deadlines(name, seeds=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PLANNERS))
def test_deadlines_hold_in_two_thousand_plans(name):
    _check_deadlines(name, seeds=167)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_units_do_not_matter(name):
    """Metres or millimetres: the same plan, up to rounding."""
    problem, plans = masses(2), []
    for unit in (1.0, 1024.0):
        request = request_for(problem, generator(0), limit=3.0 * unit)
        request = dataclasses.replace(request, evaluate=lambda plans, unit=unit: problem.evaluate(plans / unit))
        plans.append(FAMILIES[name](64).plan(request).actions / unit)
    torch.testing.assert_close(plans[0], plans[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_hundred_thousand_emitted_actions_are_inside_uneven_bounds(name):
    """Clipping happens last, in physical units, and fixed axes keep their value to the bit."""
    box = ActionBox(low=torch.tensor([-0.05, -1e-3, 0.2, 0.0]), high=torch.tensor([0.07, 500.0, 0.2, 1.0]))
    target = torch.tensor([1.0, -1.0, 1.0, 0.5])
    request = dataclasses.replace(
        request_for(masses(1), generator(0)),
        box=box,
        batch=1000,
        horizon=25,
        evaluate=lambda plans: (plans - target).square().sum(dim=(-2, -1)),
    )
    planner = dataclasses.replace(FAMILIES[name](16), num_iterations=1)
    actions = planner.plan(request).actions
    assert actions.numel() == 100_000
    assert bool(((actions >= box.low) & (actions <= box.high)).all()) and bool((actions[..., 2] == box.low[2]).all())


def test_kept_plans_come_back_as_elites_for_the_next_search():
    """The cheapest plans of the last round, best first; with a broken model the best plan so far stands in."""
    problem = masses(2)
    planner = SamplingPlanner(
        refit=EliteRefit(num_elites=8), num_samples=32, num_iterations=10, initial_std=0.5, num_kept=3
    )
    result = planner.plan(request_for(problem, generator(0)))
    assert result.elites is not None and result.elites.shape == (2, 3, 6, 2)
    costs = problem.evaluate(result.elites)
    assert (costs.diff(dim=1) >= 0).all()
    shifted = torch.cat([result.elites[:, :, 1:], result.elites[:, :, -1:]], dim=2)
    again = planner.plan(dataclasses.replace(request_for(problem, generator(1)), candidates=shifted))
    assert (again.cost <= problem.evaluate(shifted).amin(dim=1)).all()
    broken = dataclasses.replace(request_for(problem, generator(0), wrap=storm(1.1)), fallback=torch.zeros(2, 6, 2))
    elites = planner.plan(broken).elites
    assert elites is not None and elites.isfinite().all()


def test_rounds_shrink_as_planned_and_the_mean_comes_last():
    """Shapes depend on the settings alone; 128 / 1.25^i, never below twice the elites."""
    shapes, firsts = [], []
    problem, planner = masses(2), icem()

    def evaluate(plans: torch.Tensor) -> torch.Tensor:
        shapes.append(plans.shape[1])
        firsts.append(plans[:, 0])
        return problem.evaluate(plans)

    result = planner.plan(dataclasses.replace(request_for(problem, generator(0)), evaluate=evaluate))
    assert tuple(shapes) == planner.round_sizes() and shapes[:3] == [128, 102, 81] and shapes[-1] == 32
    assert result.evaluations == sum(shapes)
    spread_last = (firsts[-1] - firsts[-2]).abs().max()
    assert spread_last > 0  # the last round begins with the mean, the one before with its best kept plan


def test_an_adaptive_softmax_narrows_and_a_fixed_one_does_not():
    plans = torch.randn(1, 64, 3, 2, generator=generator(0))
    costs = plans.square().sum(dim=(-2, -1))
    old = Gaussian(torch.zeros(1, 3, 2), torch.ones(1, 3, 2))
    fixed = SoftmaxRefit(temperature=0.3)(old, plans, costs)
    adaptive = SoftmaxRefit(temperature=0.3, std_momentum=0.0)(old, plans, costs)
    assert torch.equal(fixed.std, old.std) and torch.equal(fixed.mean, adaptive.mean)
    assert (adaptive.std < 0.8).all()


def test_a_temperature_in_spreads_is_blind_to_the_scale_of_the_cost():
    plans = torch.randn(1, 32, 3, 2, generator=generator(0))
    costs = plans.square().sum(dim=(-2, -1))
    old = Gaussian(torch.zeros(1, 3, 2), torch.ones(1, 3, 2))
    refit = SoftmaxRefit(temperature=0.3, unit="spread")
    torch.testing.assert_close(refit(old, plans, costs).mean, refit(old, plans, costs * 1024 + 5).mean)


def test_noise_of_one_stream_per_world_is_what_each_would_draw():
    like = torch.zeros(())
    together = WhiteNoise()((2, 5, 4, 3), [generator(1), generator(2)], like)
    alone = WhiteNoise()((1, 5, 4, 3), generator(2), like)
    assert torch.equal(together[1], alone[0])
