"""A shipped world model at a robot of its own pictures, columns and commands."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import jepa_mpc
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.types import ActionBox
from jepa_mpc.world_model.agents.goals import CalibratedGoal


def seen(px, seed):
    pictures = np.random.default_rng(seed).integers(0, 255, (2, px, px, 3), dtype=np.uint8)
    columns = {"observation.ee_pose": np.array([0.4, 0.0, 0.3, 0.0, 0.0, 0.0]), "observation.gripper": np.array([0.02]),
               "observation.state": np.zeros(14)}  # fmt: skip
    return dict(zip(("left", "right"), pictures, strict=True)), columns


@pytest.mark.parametrize("px", [64, 128])
def test_the_robot_gets_its_own_columns(px):
    agent = jepa_mpc.load_robot_agent("reach_wide")
    goal, _ = seen(px, 0)
    pictures, columns = seen(px, 1)
    agent.reset(goal)
    command = agent.act(pictures, columns)
    moved = command["observation.ee_pose[0:3]"][0] - columns["observation.ee_pose"][:3]
    assert 0 < np.abs(moved).max() < 0.06  # m, what the arm moved per step in the log


def test_the_agent_is_the_one_of_load_agent_and_sees_the_cameras_finely():
    agent = jepa_mpc.load_robot_agent("reach_wide")
    assert isinstance(agent.agent.goals, CalibratedGoal) and agent.adapter.picture.size == 128
    draws = np.random.default_rng(0)
    pictures = {name: draws.integers(0, 255, (120, 160, 3), dtype=np.uint8) for name in ("left", "right")}
    assert agent.adapter.observe(pictures).frames.shape[-2:] == (128, 128)
    simple = jepa_mpc.load_robot_agent("reach_wide", kind="simple")
    assert not isinstance(simple.agent.goals, CalibratedGoal) and simple.adapter.picture.size == 64


def test_the_robots_own_limits_are_kept():
    high = torch.tensor([0.01, 0.01, 0.0, 0.0, 0.0, 0.0, 0.0])
    agent = jepa_mpc.load_robot_agent("reach_wide", box=ActionBox(low=-high, high=high))
    pictures, columns = seen(64, 1)
    agent.reset(seen(64, 0)[0])
    moved = agent.act(pictures, columns)["observation.ee_pose[0:3]"][0] - columns["observation.ee_pose"][:3]
    assert np.abs(moved).max() <= 0.01 + 1e-6 and abs(moved[2]) < 1e-6


def test_a_checkpoint_that_is_no_world_model_is_refused():
    with pytest.raises(BadCheckpoint):
        jepa_mpc.load_robot_agent("reach_policy")
