"""Short-term memory."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer, seen


def state(value: float, worlds: int = 2) -> torch.Tensor:
    return torch.full((worlds, 1, 3), float(value))


def test_it_keeps_the_last_frames_and_the_actions_between_them():
    memory = ReplayBuffer(capacity=3, window=3, action_dim=2)
    for step in range(10):
        memory.see(state(step))
        context = memory.read()
        frames = min(step + 1, 3)
        assert context.latents.shape == (2, frames, 1, 3) and context.actions.shape == (2, frames - 1, 2)
        assert context.latents[0, :, 0, 0].tolist() == list(range(step + 1 - frames, step + 1))
        assert context.actions[0, :, 0].tolist() == list(range(step + 1 - frames, step))
        memory.did(torch.full((2, 2), float(step)))


def test_one_frame_carries_no_actions():
    memory = ReplayBuffer(capacity=1, window=1, action_dim=2)
    memory.see(state(0))
    memory.did(torch.zeros(2, 2))
    memory.see(state(1))
    assert memory.read().actions.shape == (2, 0, 2)


def test_seeing_and_doing_must_alternate():
    memory = ReplayBuffer(capacity=2, window=2, action_dim=2)
    with pytest.raises(RuntimeError, match="without a state"):
        memory.did(torch.zeros(2, 2))
    with pytest.raises(RuntimeError, match="there is no state since the last action"):
        memory.read()
    memory.see(state(0))
    with pytest.raises(RuntimeError, match="two states"):
        memory.see(state(1))
    memory.did(torch.zeros(2, 2))
    with pytest.raises(RuntimeError, match="there is no state since the last action"):
        memory.read()


def test_it_forgets_when_told():
    memory = ReplayBuffer(capacity=2, window=2, action_dim=2)
    memory.see(state(0))
    memory.begin(goal=state(1, worlds=5))
    memory.see(state(1, worlds=5))
    assert memory.read().latents.shape == (5, 1, 1, 3)


def test_other_shapes_are_refused():
    memory = ReplayBuffer(capacity=2, window=2, action_dim=2)
    memory.see(state(0))
    with pytest.raises(ValueError, match="A=2"):
        memory.did(torch.zeros(2, 3))
    memory.did(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="B=2"):
        memory.see(state(1, worlds=3))


def test_later_changes_to_an_action_do_not_reach_the_memory():
    memory = ReplayBuffer(capacity=2, window=2, action_dim=2)
    action = torch.zeros(2, 2)
    memory.see(state(0))
    memory.did(action)
    action.fill_(7.0)
    memory.see(state(1))
    assert memory.read().actions.abs().max() == 0


def test_what_was_seen_can_be_taken_back():
    memory = ReplayBuffer(capacity=3, window=2, action_dim=2)
    memory.see(state(0))
    memory.did(torch.zeros(2, 2))
    with pytest.raises(ZeroDivisionError), seen(memory, state(1), None):
        raise ZeroDivisionError
    with seen(memory, state(2), None) as context:
        assert context.latents[0, :, 0, 0].tolist() == [0, 2]
        memory.did(torch.ones(2, 2))


def test_another_goal_on_the_way_keeps_the_window():
    memory = ReplayBuffer(capacity=4, window=3, action_dim=2)
    for step in range(2):
        memory.see(state(step))
        memory.did(torch.zeros(2, 2))
    memory.aim(goal=state(7))
    memory.see(state(2))
    assert memory.read().latents[0, :, 0, 0].tolist() == [0, 1, 2]
    memory.did(torch.zeros(2, 2))
    memory.begin(goal=state(8))
    memory.see(state(3))
    assert memory.read().latents[0, :, 0, 0].tolist() == [3]
