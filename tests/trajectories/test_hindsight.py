"""Where the object was, as far as the hand felt it, and actions of hand and grip."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_mpc.trajectories.actions import HandAndGrip, action_part, describe
from jepa_mpc.trajectories.episode import EE_POSE, GRIPPER_COMMAND
from jepa_mpc.trajectories.handling import object_from_hand

OPEN, SHUT, WIDTH = 0.04, 0.0, 0.025


def felt(path, held):
    """Labels of a hand that goes along a line and holds something in some frames."""
    hand = np.zeros((len(path), 3))
    hand[:, 0] = path
    held = np.array(held, dtype=bool)
    return object_from_hand(np.where(held, SHUT, OPEN), np.where(held, WIDTH, OPEN), hand)


def test_before_the_first_hold_it_lies_where_the_fingers_will_find_it():
    found = felt([0.0, 0.1, 0.2, 0.2, 0.3], [0, 0, 1, 1, 1])
    assert np.allclose(found[:, 0], [0.2, 0.1, 0.0, 0.0, 0.0])
    assert np.allclose(found[:, 1:], 0)


def test_after_the_last_hold_it_lies_where_it_was_left_until_the_hand_comes_back():
    found = felt([0.0, 0.0, 0.0, 0.1, 0.2, 0.05, 0.0], [1, 1, 0, 0, 0, 0, 0])
    assert np.allclose(found[:5, 0], [0.0, 0.0, 0.0, -0.1, -0.2])
    assert np.isnan(found[5:]).all()


def test_between_two_holds_it_is_known_only_if_they_agree():
    held = [1, 1, 0, 0, 1, 1]
    assert np.isfinite(felt([0.0, 0.0, 0.1, 0.1, 0.02, 0.02], held)).all()
    moved = felt([0.0, 0.0, 0.1, 0.1, 0.08, 0.08], held)
    assert np.isnan(moved[2:4]).all() and (moved[[0, 1, 4, 5]] == 0).all()


def test_a_hand_that_held_nothing_knows_nothing():
    assert np.isnan(felt([0.0, 0.1], [0, 0])).all()


def test_actions_of_hand_and_grip_lead_where_they_came_from():
    rng = np.random.default_rng(0)
    columns = {EE_POSE: rng.normal(size=(5, 6)).astype(np.float32), GRIPPER_COMMAND: rng.random((5, 1)).astype("f4")}
    columns[EE_POSE][:, 3:] = columns[EE_POSE][:1, 3:]
    part = HandAndGrip()
    actions = part(columns)
    assert actions.shape == (4, 5)
    assert np.array_equal(actions[1:, 3], actions[:-1, 4])
    led = part.follow({name: rows[:1] for name, rows in columns.items()}, actions)
    assert np.allclose(led[EE_POSE], columns[EE_POSE], atol=1e-6)
    assert np.array_equal(led[GRIPPER_COMMAND], columns[GRIPPER_COMMAND])
    assert action_part(describe(part)) == part


def test_openings_are_not_joined_over_several_steps():
    import torch

    from jepa_mpc.trajectories.framebank import FrameBank

    offsets = torch.tensor([0, 6])
    bank = FrameBank(
        frames=torch.zeros(6, 3, 8, 8, dtype=torch.uint8), actions=torch.zeros(6, 5), proprio=torch.zeros(6, 7),
        offsets=offsets, groups=torch.zeros(1, dtype=torch.int64), episodes=torch.zeros(1, dtype=torch.int64),
        cameras=("wrist",), dt_s=0.24, joined="never",
    )  # fmt: skip
    stream = torch.Generator().manual_seed(0)
    assert bank.sample(2, 3, generator=stream)["actions"].shape == (2, 2, 5)
    with pytest.raises(ValueError, match="max_stride"):
        bank.sample(2, 3, generator=stream, max_stride=2)
