"""Motions stay in the box and the workspace, repeat with the seed, and leave the mixture that a log needs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_mpc.seeding import numpy_generator
from jepa_mpc.trajectories.motion import (
    Mixture,
    RandomWalk,
    Reach,
    SmallMoves,
    WayPoints,
    WithFailures,
    reward_free_motion,
)
from jepa_mpc.types import ActionBox

STEP = torch.tensor([0.05, 0.05, 0.05, 0, 0, 0, 0])
REACH = Reach(box=ActionBox(low=-STEP, high=STEP))
MOTIONS = {
    "walk": RandomWalk,
    "points": WayPoints,
    "small": SmallMoves,
    "mixture": reward_free_motion,
}


def play(motion, steps=60, seed=0):
    """Actions and positions of a hand that does as it is told."""
    draws = numpy_generator(seed, "motion")
    proprio = np.zeros(14, dtype=np.float32)
    proprio[-6:-3] = draws.uniform(REACH.low, REACH.high)
    motion.start(proprio, draws)
    actions, places = [], []
    for _ in range(steps):
        actions.append(motion(proprio, draws))
        proprio[-6:-3] += actions[-1][:3]
        places.append(proprio[-6:-3].copy())
    return np.array(actions), np.array(places)


@pytest.mark.parametrize("name", MOTIONS)
def test_actions_stay_in_the_box(name):
    actions, _ = play(MOTIONS[name](REACH))
    assert actions.dtype == np.float32 and (np.abs(actions) <= STEP.numpy()).all()


@pytest.mark.parametrize("name", MOTIONS)
def test_the_hand_stays_near_the_workspace(name):
    places = np.concatenate([play(MOTIONS[name](REACH), seed=seed)[1] for seed in range(10)])
    assert (places > REACH.low - 0.06).all() and (places < REACH.high + 0.06).all()


@pytest.mark.parametrize("name", MOTIONS)
def test_the_same_seed_moves_alike(name):
    assert np.array_equal(play(MOTIONS[name](REACH), seed=3)[0], play(MOTIONS[name](REACH), seed=3)[0])
    assert not np.array_equal(play(MOTIONS[name](REACH), seed=3)[0], play(MOTIONS[name](REACH), seed=4)[0])


def test_a_walk_remembers_its_direction():
    walks = np.stack([play(RandomWalk(REACH), seed=seed)[0][:, :3] for seed in range(20)])
    assert np.corrcoef(walks[:, :-1].ravel(), walks[:, 1:].ravel())[0, 1] > 0.3


def test_way_points_are_reached():
    motion = WayPoints(REACH, noise_m=0.0)
    _, places = play(motion, steps=3)
    target = motion.target.copy()
    _, places = play(motion, steps=60)
    assert not np.allclose(motion.target, target)


def test_fine_motion_is_below_two_centimetres():
    lengths = np.linalg.norm(play(SmallMoves(REACH))[0][:, :3], axis=1)
    assert lengths.max() <= 0.02 + 1e-6 and lengths.mean() > 0.005


def test_the_house_mixture_holds_long_short_and_no_moves():
    lengths = np.concatenate(
        [np.linalg.norm(play(reward_free_motion(REACH), seed=s)[0][:, :3], axis=1) for s in range(40)]
    )
    assert 0.1 < (lengths < 0.02).mean() < 0.5 and (lengths > 0.04).mean() > 0.2 and (lengths == 0).any()


def test_failures_stall_and_saturate():
    disturbed = WithFailures(WayPoints(REACH), reach=REACH, rate=0.5)
    actions, _ = play(disturbed, steps=200)
    assert (np.abs(actions).max(axis=1) == 0).any() and np.isclose(np.abs(actions[:, :3]).min(axis=1), 0.05).any()


def test_shares_must_fit_the_motions():
    with pytest.raises(ValueError, match="one share per motion"):
        Mixture([RandomWalk(REACH)], shares=[0.5, 0.5])
