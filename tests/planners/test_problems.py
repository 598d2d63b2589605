"""The problems with known optimum."""

from __future__ import annotations

import torch

from jepa_mpc.planners.problems import Detour, Multimodal, Quadratic, double_integrator
from jepa_mpc.seeding import generator


def test_no_small_change_improves_the_linear_quadratic_optimum():
    start = torch.randn(3, 4, generator=generator(0), dtype=torch.float64)
    problem = double_integrator(start, torch.ones(3, 2, dtype=torch.float64), horizon=7)
    plan, cost = problem.optimum()
    plan.requires_grad_()
    (slope,) = torch.autograd.grad(problem.evaluate(plan[:, None]).sum(), plan)
    assert slope.abs().max() < 1e-9
    assert (problem.evaluate(torch.zeros_like(plan)[:, None])[:, 0] > cost).all()


def test_the_double_integrator_equals_its_textbook_loop():
    start, goal = torch.tensor([[0.3, -0.2, 0.1, 0.4]]), torch.tensor([[1.0, -1.0]])
    plans = torch.randn(1, 5, 6, 2, generator=generator(0))
    place, speed, cost = start[:, None, :2], start[:, None, 2:], torch.zeros(1, 5)
    for action in plans.unbind(dim=2):
        speed = speed + 0.2 * action
        place = place + 0.2 * speed
        cost = cost + 0.1 * (place - goal).square().sum(-1) + 0.01 * action.square().sum(-1)
    cost = cost + 5.0 * ((place - goal).square().sum(-1) + 0.1 * speed.square().sum(-1))
    torch.testing.assert_close(double_integrator(start, goal, horizon=6).evaluate(plans), cost)


def test_targets_cost_nothing():
    target = torch.randn(2, 3, 2, generator=generator(0))
    for problem in (Quadratic(target=target, scale=torch.ones(3, 2)), Multimodal(target=target)):
        assert problem.evaluate(target[:, None]).abs().max() < 1e-6


def test_going_through_the_obstacle_costs_more_than_going_around():
    problem = Detour(start=torch.tensor([[-1.5, 0.0]]), goal=torch.tensor([[1.5, 0.0]]), obstacle=torch.zeros(2))
    through = torch.tensor([0.86, 0.0]).expand(10, 2)
    side = torch.tensor([0.4] * 5 + [-0.4] * 5)
    around = torch.stack([through[:, 0], side], dim=1)
    costs = problem.evaluate(torch.stack([through, around])[None])[0]
    assert costs[1] < costs[0]
