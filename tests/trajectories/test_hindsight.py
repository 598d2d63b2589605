"""Where the object was, as far as the hand felt it, and actions of hand and grip."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_mpc.trajectories.actions import HandAndGrip, action_part, describe
from jepa_mpc.trajectories.episode import EE_POSE, GRIPPER_COMMAND
from jepa_mpc.trajectories.hindsight import in_hand, object_from_hand

OPEN, SHUT, WIDTH = 0.04, 0.0, 0.025


def along(path, axis=0):
    """A hand that goes along an axis."""
    hand = np.zeros((len(path), 3))
    hand[:, axis] = path
    return hand


def held(path, wide, *, axis=0, commanded=None, steps=None):
    """Labels of a hand along a path whose fingers are blocked in some frames."""
    hand, wide = along(path, axis), np.array(wide, dtype=bool)
    commanded = np.where(wide, SHUT, OPEN) if commanded is None else np.array(commanded)
    steps = np.diff(hand, axis=0, append=hand[-1:]) if steps is None else along(steps, 2)
    return in_hand(commanded, np.where(wide, WIDTH, commanded), hand, steps).tolist()


def seen(path, holds):
    return object_from_hand(np.array(holds, dtype=np.float64), along(path))


def test_what_rises_or_moves_with_blocked_fingers_is_in_the_hand():
    assert held([0.0, 0.0, 0.0, 0.02], [0, 0, 1, 1], axis=2) == [0, 0, 1, 1]
    assert held([0.0, 0.0, 0.03, 0.05], [0, 1, 1, 1]) == [0, 1, 1, 1]
    assert held([0.0, 0.0, 0.0], [1, 1, 0]) == [1, 1, 0]  # handed over


def test_a_hand_that_presses_and_stays_holds_nothing_that_can_be_told():
    opened = held([0.1, 0.1, 0.1, 0.1], [0, 1, 1, 0], steps=[-0.03, -0.03, 0.0, 0.0])
    assert opened[0] == 0 and np.isnan(opened[1:3]).all() and opened[3] == 0


def test_what_slipped_out_of_closing_fingers_was_not_held():
    assert held([0.1] * 4, [0, 1, 1, 0], commanded=[OPEN, SHUT, SHUT, SHUT]) == [0, 0, 0, 0]


def test_a_pressed_hand_that_pushes_sideways_holds_nothing():
    hand = np.array([[0.0, 0.0, 0.1], [0.0, 0.0, 0.1], [0.05, 0.0, 0.1], [0.10, 0.0, 0.1]])
    steps = np.array([[0.0, 0.0, -0.03], [0.05, 0.0, -0.03], [0.05, 0.0, -0.03], [0.0, 0.0, 0.0]])
    label = in_hand(np.array([OPEN, SHUT, SHUT, SHUT]), np.array([OPEN, WIDTH, WIDTH, WIDTH]), hand, steps)
    assert np.isnan(label[1:]).all()


def test_before_the_first_hold_it_lies_where_the_fingers_will_find_it():
    found = seen([0.0, 0.1, 0.2, 0.2, 0.3], [0, 0, 1, 1, 1])
    assert np.allclose(found[:, 0], [0.2, 0.1, 0.0, 0.0, 0.0])
    assert np.allclose(found[:, 1:], 0)


def test_what_the_hand_may_have_pushed_is_not_known():
    aside = seen([0.3, 0.1, 0.05, 0.0, 0.0], [0, 0, 0, 1, 1])  # comes from the side, low
    assert np.isnan(aside[:3]).all()
    passed = seen([0.3, 0.0, 0.2, 0.0, 0.0], [0, 0, 0, 1, 1])  # was there before
    assert np.isnan(passed[:2]).all() and np.allclose(passed[2, 0], -0.2)


def test_after_the_last_hold_it_lies_where_it_was_left_until_the_hand_comes_back():
    found = seen([0.0, 0.0, 0.0, 0.1, 0.2, 0.05, 0.0], [1, 1, 0, 0, 0, 0, 0])
    assert np.allclose(found[:5, 0], [0.0, 0.0, 0.0, -0.1, -0.2])
    assert np.isnan(found[5:]).all()


def test_what_is_released_in_the_air_falls_nobody_knows_where():
    found = object_from_hand(np.array([0, 1, 1, 0, 0.0]), along([0.0, 0.0, 0.1, 0.1, 0.2], 2))
    assert np.isnan(found[3:]).all() and (found[1:3] == 0).all()


def test_between_two_holds_it_is_known_only_if_they_agree():
    holds = [1, 1, 0, 0, 1, 1]
    assert np.isfinite(seen([0.0, 0.0, 0.1, 0.1, 0.02, 0.02], holds)).all()
    moved = seen([0.0, 0.0, 0.1, 0.1, 0.08, 0.08], holds)
    assert np.isnan(moved[2:4]).all() and (moved[[0, 1, 4, 5]] == 0).all()


def test_a_hand_that_held_nothing_knows_nothing():
    assert np.isnan(seen([0.0, 0.1], [0, 0])).all()


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
