"""Limits on groups of axes, under every planner."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.planners import PLANNERS
from jepa_mpc.planners.problems import memoryless
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, ActionGroup, PlanRequest

HIGH = torch.tensor([0.05, 0.05, 0.05, 0.2, 0.2, 0.2, 1.0])
GROUPS = (
    ActionGroup(name="position", axes=(0, 1, 2), limit=0.05),
    ActionGroup(name="rotation", axes=(3, 4, 5), limit=0.1),
    ActionGroup(name="gripper", axes=(6,), limit=0.75, norm="max"),
)
BOX = ActionBox(low=-HIGH, high=HIGH, groups=GROUPS)
FAR = torch.tensor([0.04, -0.04, 0.03, 0.15, 0.0, 0.15, 1.0])


@pytest.mark.parametrize("name", sorted(PLANNERS))
def test_every_plan_that_is_tried_keeps_the_limits(name):
    seen = []

    def evaluate(plans):
        seen.append(plans.detach())
        return ((plans - FAR) / HIGH).square().sum(dim=(-2, -1))

    steps = memoryless(lambda plans: ((plans - FAR) / HIGH).square().sum(dim=(-2, -1)), torch.zeros(2, 3, 7))
    request = PlanRequest(evaluate=evaluate, box=BOX, batch=2, horizon=3, generator=generator(0), steps=steps)
    result = PLANNERS[name]().plan(request)
    assert all(BOX.contains(plans).all() for plans in [*seen, result.actions])
    assert (result.cost < evaluate(torch.zeros(2, 1, 3, 7))[:, 0]).all()
