"""Policies without learning."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_mpc.envs.baselines import DoNothing, OracleIK, RandomActions
from jepa_mpc.envs.labs import sample_lab


@pytest.mark.parametrize("split", ["train", "all"])
def test_knowing_everything_reaches_the_goal(env, split):
    for index in range(2):
        env.reset(seed=index, options={"lab": sample_lab(index, split=split)})
        policy = OracleIK(env)
        for _ in range(env.budget):
            info = env.step(policy.act(env))[4]
        assert info["distance_m"] < 0.015


def test_doing_nothing_stays_where_it_is(env):
    before = env.hand_m()
    for _ in range(3):
        env.step(DoNothing().act(env))
    assert np.linalg.norm(env.hand_m() - before) < 0.01


def test_random_actions_are_drawn_from_the_box_and_from_the_generator(env):
    one, other = (RandomActions(torch.Generator().manual_seed(3)) for _ in range(2))
    drawn = np.stack([one.act(env) for _ in range(50)])
    assert np.array_equal(drawn, np.stack([other.act(env) for _ in range(50)]))
    assert (np.abs(drawn[:, :3]) <= 0.05).all() and drawn[:, :3].std() > 0.02 and not drawn[:, 3:].any()
