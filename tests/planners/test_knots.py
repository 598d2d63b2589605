"""Plans through knots."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from jepa_mpc.planners import KnotPlanner, cem, cma, gradient, icem, mppi
from jepa_mpc.planners.knots import spread
from jepa_mpc.planners.problems import Quadratic, request_for
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, ActionGroup, PlanStatus

SPLINES = ("zero", "linear", "cubic")


@pytest.mark.parametrize("spline", SPLINES)
def test_equal_knots_give_a_constant_plan(spline):
    for horizon, num_knots in ((1, 1), (7, 1), (7, 2), (7, 3), (8, 5), (5, 5)):
        weights = spread(horizon, num_knots, spline)
        assert weights.shape == (horizon, num_knots)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(horizon, dtype=torch.float64))


@pytest.mark.parametrize("spline", SPLINES)
def test_as_many_knots_as_steps_are_the_plan_itself(spline):
    torch.testing.assert_close(spread(6, 6, spline), torch.eye(6, dtype=torch.float64))


def test_splines_reproduce_the_curves_they_are_made_for():
    steps = torch.linspace(0, 1, 13, dtype=torch.float64)
    knots = torch.linspace(0, 1, 5, dtype=torch.float64)
    for spline in ("linear", "cubic"):
        torch.testing.assert_close(spread(13, 5, spline) @ (2 * knots - 1), 2 * steps - 1)
    inner = slice(3, 10)  # slopes are one-sided, hence rougher, at the ends
    torch.testing.assert_close((spread(13, 5, "cubic") @ knots**2)[inner], steps[inner] ** 2)
    assert (spread(12, 4, "zero") @ torch.arange(4.0).double()).tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3


def bend() -> Quadratic:
    """A target that bends slowly over 24 steps."""
    target = torch.linspace(0, 3, 24).sin()[None, :, None].expand(2, 24, 3)
    return Quadratic(target=target, scale=torch.ones(24, 3))


@pytest.mark.parametrize("inner", [cem(), icem(), mppi(), cma(), gradient()])
def test_any_planner_searches_knots(inner):
    problem = bend()
    result = KnotPlanner(planner=inner, num_knots=5, spline="cubic").plan(request_for(problem, generator(0)))
    still = problem.evaluate(torch.zeros(2, 1, 24, 3))[:, 0]
    assert (result.cost < 0.05 * still).all()
    torch.testing.assert_close(problem.evaluate(result.actions[:, None])[:, 0], result.cost)


def test_knots_find_a_long_smooth_plan_with_far_fewer_evaluations():
    """Measured over 3 seeds and 2 worlds: a mean cost of 1.0 over 5 knots, 16 over 24 actions."""
    search = cem(num_samples=64, num_elites=8, num_iterations=8)
    costs = []
    for planner in (KnotPlanner(planner=search, num_knots=5, spline="cubic"), search):
        results = [planner.plan(request_for(bend(), generator(seed))) for seed in range(3)]
        costs.append(torch.cat([result.cost for result in results]).mean())
        assert results[0].evaluations <= 8 * 64 + 2
    assert costs[0] < 0.2 * costs[1]


def test_a_plan_between_knots_stays_allowed():
    """A cubic through knots at the corners overshoots: what the cost sees is clipped, limits on groups included."""
    high = torch.ones(2)
    box = ActionBox(low=-high, high=high, groups=(ActionGroup(name="both", axes=(0, 1), limit=1.1),))
    seen = []

    def evaluate(plans):
        seen.append(plans.detach())
        return (plans - torch.tensor([9.0, 9.0]) * torch.tensor([1, -1] * 6)[:, None]).square().sum(dim=(-2, -1))

    problem = Quadratic(target=torch.zeros(1, 12, 2), scale=torch.ones(12, 2))
    request = dataclasses.replace(request_for(problem, generator(0)), evaluate=evaluate, box=box)
    for inner in (cem(num_iterations=3), gradient(num_iterations=5)):
        result = KnotPlanner(planner=inner, num_knots=5, spline="cubic").plan(request)
        assert box.contains(result.actions).all()
    assert len(seen) == 2 + 3 + 5 and all(box.contains(plans).all() for plans in seen)


def test_a_warm_start_reaches_the_inner_search():
    problem = Quadratic(target=torch.ones(1, 12, 2), scale=torch.ones(12, 2))
    starts = []

    class Watch:
        def plan(self, request):
            starts.append(request)
            return cem(num_samples=8, num_elites=2, num_iterations=1).plan(request)

    request = dataclasses.replace(request_for(problem, generator(0)), warm_start=torch.full((1, 12, 2), 0.7))
    KnotPlanner(planner=Watch(), num_knots=3, spline="cubic").plan(request)
    torch.testing.assert_close(starts[0].warm_start, torch.full((1, 3, 2), 0.7))


def test_time_that_runs_out_in_the_inner_search_is_told():
    now = [0.0]

    def slow(evaluate):
        def evaluated(plans):
            now[0] += 0.01
            return evaluate(plans)

        return evaluated

    problem = Quadratic(target=torch.ones(1, 12, 2), scale=torch.ones(12, 2))
    request = dataclasses.replace(request_for(problem, generator(0), wrap=slow), deadline_s=0.035, clock=lambda: now[0])
    result = KnotPlanner(planner=cem(), num_knots=3, spline="cubic").plan(request)
    assert result.status == (PlanStatus.DEADLINE,) and result.iterations == 4
    assert any("time ran out" in warning for warning in result.warnings)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="num_knots >= 1"):
        KnotPlanner(planner=cem(), num_knots=0, spline="cubic")
    with pytest.raises(ValueError, match="zero, linear, cubic"):
        KnotPlanner(planner=cem(), num_knots=4, spline="quintic")
