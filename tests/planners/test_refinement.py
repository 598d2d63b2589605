"""Sampling whose best plans walk downhill."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from jepa_mpc.planners import cem, grad_cem
from jepa_mpc.planners.problems import Multimodal, double_integrator, request_for
from jepa_mpc.seeding import generator
from jepa_mpc.types import PlanStatus


def mass(horizon: int = 12):
    return double_integrator(torch.tensor([[1.0, -0.5, 0.2, 0.0]]), torch.zeros(1, 2), horizon=horizon)


def test_gradient_steps_find_what_more_samples_do_not():
    """Gap to the best plan, mean over 3 seeds, with 672 evaluations: 0.17; the plain method with 768: 0.35."""
    best, plain, refined = mass().optimum()[1], [], []
    for seed in range(3):
        plain.append(cem(num_samples=128, num_elites=16, num_iterations=6).plan(request_for(mass(), generator(seed))))
        refined.append(
            grad_cem(num_samples=64, num_elites=8, num_iterations=6).plan(request_for(mass(), generator(seed)))
        )
    assert refined[0].evaluations < plain[0].evaluations
    gaps = [sum(float(result.cost - best) for result in results) for results in (refined, plain)]
    assert gaps[0] < 0.75 * gaps[1]


def test_sampling_still_leaves_shallow_dips():
    problem = Multimodal(target=torch.randn(2, 4, 2, generator=generator(1)))
    result = grad_cem().plan(request_for(problem, generator(0)))
    assert (result.cost < 0.1 * problem.evaluate(torch.zeros(2, 1, 4, 2))[:, 0]).all()


def test_evaluations_are_counted():
    result = grad_cem(num_samples=20, num_elites=4, num_iterations=3, num_refined=5, num_steps=2).plan(
        request_for(mass(), generator(0))
    )
    assert result.evaluations == 3 * (20 + 3 * 5) and result.iterations == 3 * 4


def test_time_that_runs_out_between_two_steps_is_told():
    now = [0.0]

    def slow(evaluate):
        def evaluated(plans):
            now[0] += 0.01
            return evaluate(plans)

        return evaluated

    request = dataclasses.replace(request_for(mass(), generator(0), wrap=slow), deadline_s=0.055, clock=lambda: now[0])
    result = grad_cem().plan(request)
    assert result.status == (PlanStatus.DEADLINE,) and result.iterations == 6


def test_a_cost_without_gradient_is_refused():
    request = request_for(mass(), generator(0), wrap=lambda evaluate: lambda plans: evaluate(plans.detach()))
    with pytest.raises(ValueError, match="differentiable"):
        grad_cem().plan(request)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="num_samples >= 16"):
        grad_cem(num_samples=8, num_elites=4)
    with pytest.raises(ValueError, match="num_steps >= 1"):
        grad_cem(num_steps=0)
