"""Planner after planner."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from jepa_mpc.planners import Chain, cem, cem_gradient, gradient, random_shooting
from jepa_mpc.planners.problems import double_integrator, request_for
from jepa_mpc.seeding import generator
from jepa_mpc.types import PlanStatus


def mass():
    return double_integrator(torch.tensor([[1.0, -0.5, 0.2, 0.0]]), torch.zeros(1, 2), horizon=8)


def test_refinement_improves_on_the_search_alone():
    search = cem(num_samples=64, num_elites=8, num_iterations=4)
    alone = search.plan(request_for(mass(), generator(0)))
    refined = Chain((search, gradient(num_starts=4, initial_std=0.1))).plan(request_for(mass(), generator(0)))
    assert (refined.cost < alone.cost).all()
    assert torch.equal(refined.trace[: alone.iterations], alone.trace)
    assert refined.evaluations == alone.evaluations + 4 * 30


def test_a_stage_without_a_valid_plan_does_no_harm():
    calls = []

    def breaking(evaluate):
        def spoiled(plans):
            calls.append(1)
            return evaluate(plans) * (math.nan if len(calls) == 1 else 1.0)

        return spoiled

    chain = Chain((random_shooting(num_samples=16), gradient(num_iterations=5)))
    result = chain.plan(request_for(mass(), generator(0), wrap=breaking))
    assert result.status == (PlanStatus.DEGRADED,) and result.cost.isfinite().all()


def test_the_stages_share_the_time():
    now = [0.0]

    def slow(evaluate):
        def evaluated(plans):
            now[0] += 0.01
            return evaluate(plans)

        return evaluated

    request = request_for(mass(), generator(0), wrap=slow)
    request = dataclasses.replace(request, deadline_s=0.06, clock=lambda: now[0])
    result = cem_gradient().plan(request)
    assert result.status == (PlanStatus.DEADLINE,)
    assert 3 * 128 < result.evaluations < 5 * 128
    assert result.seconds <= 0.07 + 1e-9


def test_an_empty_chain_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        Chain(())
