"""Costs of handling, from sensors of hand, object, its upright axis and grip."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.envs.handling_cost import handling, moving


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
