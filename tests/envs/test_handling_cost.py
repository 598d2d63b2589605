"""Costs of handling, from sensors of hand, object, its upright axis and grip."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.envs.handling_cost import grip, handling, moving


def read(hand, thing, grip=0.04):
    return torch.tensor([*hand, *thing, 0.0, 0.0, 1.0, grip])


GOAL = read((0.5, 0.0, 0.15), (0.5, 0.0, 0.03))


def test_the_hand_is_wanted_at_the_object_until_that_is_at_its_goal():
    away = read((0.4, 0.0, 0.10), (0.4, 0.0, 0.03))
    assert torch.isclose(moving()(away, GOAL), torch.tensor(2 * 0.1 + 0.5 * 0.07))
    there = read((0.5, 0.0, 0.05), (0.5, 0.0, 0.03))
    assert torch.isclose(moving()(there, GOAL), torch.tensor(0.5 * 0.10), atol=1e-5)


def test_an_object_that_is_near_enough_is_left_alone():
    at_hand, at_goal = (0.52, 0.0, 0.05), (0.5, 0.0, 0.15)
    tries = torch.stack([read(hand, (0.52, 0.0, 0.03)) for hand in (at_hand, at_goal)])
    strict, lenient = (handling(near_m=near_m)(tries, GOAL) for near_m in (0.0, 0.03))
    assert lenient[1] < 1e-5 and lenient[0] > 0.04
    assert strict[1] > 0.06
    with pytest.raises(ValueError, match="near_m >= 0"):
        handling(near_m=-0.01)


def test_the_grip_counts_within_its_gate_alone():
    now, goal = torch.zeros(3, 10), torch.zeros(10)
    now[:, 0], now[:, 9] = torch.tensor([0.0, 0.02, 0.10]), 0.04
    near, wide = grip(0.01)(now, goal), grip(0.03)(now, goal)
    torch.testing.assert_close(near, 0.04 * (-(now[:, 0] ** 2) / 0.01**2).exp())
    assert near[0] == wide[0] and near[1] < 0.03 * wide[1] and wide[2] < 1e-6
    for gate_m in (0.0, -0.01, float("nan")):
        with pytest.raises(ValueError, match="gate_m > 0"):
            grip(gate_m)
