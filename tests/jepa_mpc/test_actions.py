"""The actions that a robot accepts."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.actions import ActionBox, ActionGroup, from_blocks, shifted, to_blocks
from jepa_mpc.seeding import generator

POSITION = ActionGroup(name="position", axes=(0, 1, 2), limit=0.05)
ROTATION = ActionGroup(name="rotation", axes=(3, 4, 5), limit=0.1)
GRIPPER = ActionGroup(name="gripper", axes=(6,), limit=0.75, norm="max")
HIGH = torch.tensor([0.05, 0.05, 0.02, 0.3, 0.3, 0.3, 1.0])
ARM = ActionBox(low=-HIGH, high=HIGH, groups=(POSITION, ROTATION, GRIPPER))


def test_clipped_actions_are_accepted_and_clipping_again_changes_nothing():
    for dtype in (torch.float32, torch.float64):
        box = ActionBox(low=-HIGH.to(dtype), high=HIGH.to(dtype), groups=ARM.groups)
        wild = torch.randn(20_000, 7, generator=generator(0), dtype=dtype) * box.high
        wild = wild * torch.logspace(-1, 1, 20_000, dtype=dtype)[:, None]
        clipped = box.clip(wild)
        assert box.contains(clipped).all()
        assert torch.equal(box.clip(clipped), clipped)
        accepted = box.contains(wild)
        assert accepted.any() and torch.equal(clipped[accepted], wild[accepted])


def test_a_group_that_is_too_large_keeps_its_direction_and_others_stay():
    action = torch.tensor([0.0, 0.0, 0.0, 0.2, -0.1, 0.2, 0.5])
    clipped = ARM.clip(action)
    torch.testing.assert_close(clipped[3:6], action[3:6] * (0.1 / 0.3))
    assert torch.equal(clipped[[0, 1, 2, 6]], action[[0, 1, 2, 6]])


def test_a_max_norm_bounds_each_axis():
    box = ActionBox(
        low=-torch.ones(3), high=torch.ones(3), groups=(ActionGroup(name="g", axes=(0, 2), limit=0.5, norm="max"),)
    )
    assert box.clip(torch.tensor([0.9, 0.9, -0.7])).tolist() == [0.5, pytest.approx(0.9), -0.5]


def test_a_box_without_zero_is_left_by_no_group():
    low, high = torch.tensor([0.3, -1.0]), torch.tensor([1.0, 1.0])
    box = ActionBox(low=low, high=high, groups=(ActionGroup(name="g", axes=(0, 1), limit=0.5),))
    clipped = box.clip(torch.randn(1000, 2, generator=generator(0)) * 2)
    assert box.contains(clipped).all() and (clipped.norm(dim=-1) > 0.499).any()
    with pytest.raises(ValueError, match="no action is left"):
        ActionBox(low=low, high=high, groups=(ActionGroup(name="g", axes=(0, 1), limit=0.2),))


def test_clipping_lets_a_finite_gradient_through():
    for action in (torch.zeros(7), torch.full((7,), 9.0), torch.tensor([0.01] * 7)):
        action.requires_grad_()
        (slope,) = torch.autograd.grad(ARM.clip(action).sum(), action)
        assert slope.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": ()}, "distinct axes"),
        ({"axes": (1, 1)}, "distinct axes"),
        ({"limit": 0.0}, "positive, finite limit"),
        ({"norm": "l1"}, "'l2' or 'max'"),
    ],
)
def test_a_bad_group_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ActionGroup(**{"name": "g", "axes": (0,), "limit": 1.0, **change})


def test_groups_that_do_not_fit_the_box_are_refused():
    for groups, message in (((GRIPPER,), "of 3"), ((POSITION, POSITION), "two action groups")):
        with pytest.raises(ValueError, match=message):
            ActionBox(low=-torch.ones(3), high=torch.ones(3), groups=groups)


def test_a_box_of_blocks_bounds_each_action_in_them():
    blocks = torch.randn(100, 4, 21, generator=generator(0))
    clipped = ARM.blocked(3).clip(blocks)
    assert torch.equal(from_blocks(clipped, 3), ARM.clip(from_blocks(blocks, 3)))


def test_blocks_are_written_out_and_grouped_again():
    actions = torch.arange(12.0).reshape(1, 6, 2)
    blocks = to_blocks(actions, 3)
    assert blocks.tolist() == [[[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]]
    assert torch.equal(from_blocks(blocks, 3), actions)
    with pytest.raises(ValueError, match="blocks of 4"):
        to_blocks(actions, 4)
    with pytest.raises(ValueError, match="cannot hold"):
        from_blocks(actions, 3)


def test_a_plan_is_shifted_by_what_was_carried_out():
    plan = torch.arange(4.0).reshape(1, 4, 1)
    still = torch.full((1, 4, 1), -1.0)
    assert shifted(plan, 1)[0, :, 0].tolist() == [1, 2, 3, 3]
    assert shifted(plan, 3, tail=still)[0, :, 0].tolist() == [3, -1, -1, -1]
    assert shifted(plan, 9, tail=still)[0, :, 0].tolist() == [-1] * 4
    assert torch.equal(shifted(plan, 0), plan)
    with pytest.raises(ValueError, match="steps >= 0"):
        shifted(plan, -1)
