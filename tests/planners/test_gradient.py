"""Descent through the cost."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import pytest
import torch

from jepa_mpc.planners import gradient
from jepa_mpc.planners.gradient import QUICK_BETAS
from jepa_mpc.planners.problems import Multimodal, Quadratic, request_for
from jepa_mpc.seeding import generator


def bowl(worlds: int = 2) -> Quadratic:
    target = torch.randn(worlds, 4, 3, generator=generator(0, "target"))
    return Quadratic(target=target, scale=torch.ones(4, 3))


def test_a_cost_without_gradient_is_refused():
    request = request_for(bowl(), generator(0), wrap=lambda evaluate: lambda plans: evaluate(plans.detach()))
    with pytest.raises(ValueError, match="differentiable"):
        gradient().plan(request)
    weight = torch.ones((), requires_grad=True)
    request = request_for(bowl(), generator(0), wrap=lambda evaluate: lambda x: evaluate(x.detach()) * weight)
    with pytest.raises(ValueError, match="differentiable"):
        gradient().plan(request)


@pytest.mark.parametrize("optimiser", [partial(torch.optim.SGD, lr=0.05), partial(torch.optim.AdamW, lr=0.1)])
def test_any_optimiser_descends(optimiser):
    result = dataclasses.replace(gradient(num_iterations=60), optimiser=optimiser).plan(
        request_for(bowl(), generator(0))
    )
    assert (result.cost < 0.05 * result.trace[0]).all()


def test_one_starts_broken_gradient_never_touches_another():
    """The cost stays finite but start 2 has a NaN slope: all other starts descend as if it were not there."""
    problem = bowl(1)
    seen: dict[str, list[torch.Tensor]] = {"clean": [], "sick": []}

    class Break(torch.autograd.Function):
        @staticmethod
        def forward(ctx, plans):
            return plans.clone()

        @staticmethod
        def backward(ctx, slope):
            return torch.where(torch.arange(slope.shape[1])[:, None, None] == 2, math.nan, slope)

    def watching(name, evaluate):
        def evaluated(plans):
            seen[name].append(plans.detach())
            return evaluate(plans)

        return evaluated

    for name, evaluate in (("clean", problem.evaluate), ("sick", lambda plans: problem.evaluate(Break.apply(plans)))):
        request = dataclasses.replace(request_for(problem, generator(0)), evaluate=watching(name, evaluate))
        assert gradient(num_starts=5, num_iterations=6).plan(request).actions.isfinite().all()
    others = [0, 1, 3, 4]
    for clean, sick in zip(seen["clean"], seen["sick"], strict=True):
        assert torch.equal(clean[:, others], sick[:, others])
    assert torch.equal(seen["sick"][-1][:, 2], seen["sick"][0][:, 2])


def test_a_start_that_meets_an_invalid_region_returns_to_where_it_was_valid():
    """Plans beyond 0.5 are invalid, the slope leads there: the search creeps up to the edge."""

    def evaluate(plans):
        total = -plans.sum(dim=(-2, -1))
        return torch.where((plans > 0.5).any(dim=-1).any(dim=-1), math.nan, total)

    request = dataclasses.replace(request_for(bowl(), generator(0), limit=1.0), evaluate=evaluate)
    result = gradient(num_starts=1, num_iterations=20, learning_rate=0.1).plan(request)
    assert (result.cost < -0.35 * 12).all()


def test_units_do_not_matter():
    """Metres or millimetres: the same plan, up to rounding."""
    problem, plans = bowl(), []
    for unit in (1.0, 1000.0):
        request = request_for(problem, generator(0), limit=2.0 * unit)
        request = dataclasses.replace(request, evaluate=lambda plans, unit=unit: problem.evaluate(plans / unit))
        plans.append(gradient().plan(request).actions / unit)
    torch.testing.assert_close(plans[0], plans[1], rtol=1e-3, atol=1e-3)


def test_no_gradient_is_left_in_the_model():
    weight = torch.nn.Parameter(torch.ones(3))
    request = request_for(bowl(), generator(0), wrap=lambda evaluate: lambda plans: evaluate(plans * weight))
    result = gradient(num_iterations=3).plan(request)
    assert weight.grad is None and not result.actions.requires_grad and not result.cost.requires_grad


def test_it_plans_although_the_caller_switched_gradients_off():
    with torch.no_grad():
        assert gradient(num_iterations=3).plan(request_for(bowl(), generator(0))).cost.isfinite().all()


def test_an_optimiser_that_calls_the_cost_by_itself_is_refused():
    with pytest.raises(ValueError, match="closure"):
        dataclasses.replace(gradient(), optimiser=torch.optim.LBFGS).plan(request_for(bowl(), generator(0)))


def test_step_noise_leads_out_of_dips():
    """A bowl with ripples, one start in each of 16 worlds: measured 0.39 to 0.44 with noise and 3.02 without."""
    problem = Multimodal(target=torch.randn(16, 3, 2, generator=generator(1)))
    optimiser = partial(torch.optim.Adam, lr=0.15, betas=QUICK_BETAS)
    one = dataclasses.replace(gradient(num_starts=1, num_iterations=120), optimiser=optimiser)
    for seed in range(3):
        plain, noisy = (
            dataclasses.replace(one, step_noise=noise).plan(request_for(problem, generator(seed), limit=2.0))
            for noise in (0.0, 0.1)
        )
        assert noisy.cost.mean() < 0.3 * plain.cost.mean()
