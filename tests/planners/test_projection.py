"""The search of V-JEPA 2-AC: momenta of its own, rules for the gripper, and what it answers."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from jepa_mpc.planners import GripperProjection, SamplingPlanner, hand_cem
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, PlanRequest, PlanStatus

HIGH = torch.tensor([0.05, 0.05, 0.05, 0.0, 0.0, 0.0, 1.0])
TARGET = torch.tensor([0.03, -0.02, 0.04, 0.3, 0.0, 0.0, 0.6])


def request(**changes) -> PlanRequest:
    facts = {
        "evaluate": lambda plans: (plans - TARGET).square().sum(dim=(-2, -1)),
        "box": ActionBox(low=-HIGH, high=HIGH),
        "batch": 2,
        "horizon": 2,
        "generator": generator(0),
    }
    return PlanRequest(**facts | changes)


def planner(**changes) -> SamplingPlanner:
    return hand_cem(**{"num_samples": 200, "num_elites": 20, "gripper": 6, "answer": "mean"} | changes)


def test_the_hand_goes_where_the_cost_is_least_and_turns_nothing():
    found = planner().plan(request())
    assert torch.allclose(found.actions[..., :3], TARGET[:3].expand(2, 2, 3), atol=5e-3)
    assert (found.actions[..., 3:6] == 0).all()
    assert torch.allclose(found.actions[..., 6], torch.full((2, 2), 0.6), atol=0.15)


def test_small_changes_of_the_gripper_become_none_and_large_ones_are_limited():
    small, large = (TARGET.clone() for _ in range(2))
    small[6], large[6] = 0.1, 5.0
    for target, wanted in ((small, 0.0), (large, 0.75)):
        found = planner().plan(request(evaluate=lambda plans, aim=target: (plans - aim).square().sum(dim=(-2, -1))))
        assert torch.allclose(found.actions[..., 6], torch.full((2, 2), wanted), atol=0.05)


def test_the_gripper_closes_from_the_step_that_is_asked_for():
    found = planner(close_from=1).plan(request())
    assert (found.actions[:, 1, 6] == 1).all() and (found.actions[:, 0, 6] < 1).all()


def test_more_momentum_of_the_mean_moves_it_less():
    lazy, quick = (planner(num_iterations=1, momentum_mean=share).plan(request()).actions for share in (0.9, 0.0))
    assert torch.allclose(lazy[..., :3], 0.1 * quick[..., :3], atol=1e-6)


def test_more_momentum_of_the_spread_leaves_it_wider():
    tried = []

    def evaluate(plans):
        tried.append(plans[..., 0].std())
        return (plans - TARGET).square().sum(dim=(-2, -1))

    spreads = []
    for share in (0.0, 0.95):
        tried.clear()
        planner(num_iterations=8, momentum_std=share).plan(request(evaluate=evaluate))
        spreads.append(tried[7])
    assert spreads[1] > 1.5 * spreads[0]


def test_the_mean_is_answered_with_its_own_cost():
    asked = request()
    found = planner().plan(asked)
    assert torch.allclose(found.cost, asked.evaluate(found.actions[:, None])[:, 0])
    best = planner(answer="best").plan(request())
    assert (best.cost <= found.cost + 1e-9).all()


def test_a_mean_without_a_finite_cost_gives_way_to_the_best_plan():
    def evaluate(plans):
        costs = (plans - TARGET).square().sum(dim=(-2, -1))
        return costs if plans.shape[1] > 1 else torch.full_like(costs, torch.nan)

    found = planner().plan(request(evaluate=evaluate))
    assert found.cost.isfinite().all() and found.status == (PlanStatus.DEGRADED,) * 2


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="num_elites"):
        hand_cem(num_elites=1)
    with pytest.raises(ValueError, match="momentum"):
        hand_cem(momentum_std=1.0)
    with pytest.raises(ValueError, match="answer"):
        hand_cem(answer="median")
    with pytest.raises(ValueError, match="needs try_mean='end'"):
        dataclasses.replace(planner(), try_mean="every")
    with pytest.raises(ValueError, match="limit"):
        GripperProjection(axis=6, limit=math.nan)
    with pytest.raises(ValueError, match="have 7 numbers"):
        planner(gripper=7).plan(request())
