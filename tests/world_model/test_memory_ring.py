"""The ring: what it keeps, what it forgets, and what it never mixes up."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.checkpoint import load_checkpoint, save_checkpoint
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer
from jepa_mpc.world_model.memory.storage import pooled_key

WIDTH, SCALE = 16, 200.0


def state(*values: float) -> torch.Tensor:
    """One token per world; its first number is the value, the others point elsewhere for each value."""
    rows = [SCALE * torch.randn(WIDTH, generator=generator(0, "state", str(value))) for value in values]
    tokens = torch.stack(rows)[:, None]
    tokens[..., 0] = torch.tensor(values)[:, None]
    return tokens


def filled(memory: ReplayBuffer, steps: int, *, first: int = 0) -> ReplayBuffer:
    """World w sees 100 w + t at step t, pays as much, and does t."""
    for step in range(first, first + steps):
        memory.see(state(step, 100 + step))
        memory.judge(torch.tensor([step, 100 + step]).float())
        memory.did(torch.full((2, 2), float(step)))
    return memory


def test_going_round_keeps_the_newest():
    memory = filled(ReplayBuffer(capacity=4, action_dim=2), 11)
    pairs = memory.pairs(1)
    assert sorted(pairs.latents[:, 0, 0].tolist()) == [7, 8, 9, 107, 108, 109]
    assert memory._store["latents"].shape == (2, 4, 1, WIDTH)


def test_a_world_is_forgotten_alone():
    memory = filled(ReplayBuffer(capacity=8, action_dim=2), 3)
    memory.clear(torch.tensor([0]))
    assert (memory.pairs(1).latents[:, 0, 0] >= 100).all() and len(memory.pairs(1).costs) == 2
    assert memory.novelty(memory.key(state(0, 100), None)).tolist() == [torch.inf, 0.0]
    memory.see(state(7, 103))
    context, real = memory.recent(4)
    assert real.tolist() == [[False, False, False, True], [True] * 4]
    assert context.latents[0, :, 0, 0].tolist() == [7] * 4 and context.latents[1, :, 0, 0].tolist() == [
        100,
        101,
        102,
        103,
    ]
    assert (context.actions[0] == 0).all() and context.actions[1, :, 0].tolist() == [0, 1, 2]


def test_pairs_carry_the_cost_some_steps_later():
    pairs = filled(ReplayBuffer(capacity=16, action_dim=2), 6).pairs(3)
    assert len(pairs.costs) == 6
    assert torch.equal(pairs.costs, pairs.latents[:, 0, 0] + 3)
    assert (pairs.weights == 1).all()


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_pairs_never_cross_the_end_of_an_episode(delay):
    memory = filled(ReplayBuffer(capacity=32, action_dim=2), 4)
    memory.begin(torch.tensor([1]))
    filled(memory, 4, first=4)
    memory.begin()
    filled(memory, 3, first=8)
    pairs = memory.pairs(delay)
    began = {False: [0, 8], True: [100, 104, 108]}
    for start in pairs.latents[:, 0, 0].tolist():
        borders = began[start >= 100]
        assert not any(start < border <= start + delay for border in borders)
    expected = sum(max(0, length - delay) for length in (8, 3, 4, 4, 3))
    assert len(pairs.costs) == expected


def test_the_goal_of_an_episode_goes_with_its_pairs():
    memory = ReplayBuffer(capacity=16, action_dim=2)
    memory.begin(goal=state(50, 51))
    filled(memory, 3)
    memory.begin(goal=state(60, 61))
    filled(memory, 3, first=3)
    pairs = memory.pairs(1)
    told = dict(zip(pairs.latents[:, 0, 0].tolist(), pairs.goals[:, 0, 0].tolist(), strict=True))
    assert told == {0: 50, 1: 50, 3: 60, 4: 60, 100: 51, 101: 51, 103: 61, 104: 61}


def test_a_planted_state_is_found_under_noise():
    memory = filled(ReplayBuffer(capacity=64, action_dim=2), 40)
    noisy = state(17, 123) + 1e-3 * SCALE * torch.randn(2, 1, WIDTH, generator=generator(0, "noise"))
    found = memory.retrieve(memory.key(noisy, None), count=3, temperature=0.02)
    assert found.latents[:, 0, 0, 0].tolist() == [17, 123] and found.steps[:, 0].tolist() == [17, 23]
    assert found.costs[:, 0].tolist() == [17, 123] and found.actions[:, 0, 0].tolist() == [17, 23]
    assert (found.weights[:, 0] > 0.9).all()
    torch.testing.assert_close(found.weights.sum(1), torch.ones(2))
    recalled = memory.recall(memory.key(noisy, None), temperature=0.005)
    torch.testing.assert_close(recalled[:, 0, 0], torch.tensor([17.0, 123.0]), atol=0.5, rtol=0.0)


def test_looking_for_more_than_there_is_gives_weights_of_zero():
    memory = filled(ReplayBuffer(capacity=8, action_dim=2), 2)
    found = memory.retrieve(memory.key(state(0, 100), None), count=5)
    assert (found.weights[:, 2:] == 0).all() and (found.steps[:, 2:] == -1).all()


def test_predictions_are_never_returned_by_default():
    memory = ReplayBuffer(capacity=16, action_dim=2)
    memory.see(state(0, 100))
    memory.judge(torch.tensor([0.0, 100.0]))
    memory.did(torch.zeros(2, 2))
    memory.expect(torch.stack([state(1, 101), state(2, 102)], dim=1), torch.ones(2, 2))
    query = memory.key(state(2, 102), None)
    assert memory.retrieve(query, count=16).weights[:, 1:].sum() == 0
    assert memory.retrieve(query, count=1, predicted=True).latents[:, 0, 0, 0].tolist() == [2, 102]
    assert len(memory.pairs(1).costs) == 0 and len(memory.pairs(1, predicted=True).costs) == 0
    assert memory.log() is None and (memory.novelty(query) > 0.1).all()


def test_predicted_states_may_be_inputs_with_half_the_weight():
    memory = filled(ReplayBuffer(capacity=16, action_dim=2), 1)
    memory.expect(torch.stack([state(1, 101), state(2, 102), state(3, 103)], dim=1))
    memory.see(state(1, 101))
    memory.judge(torch.tensor([1.0, 101.0]))
    memory.did(torch.zeros(2, 2))
    memory.overwrite(memory.now + 2, state(3, 103))
    memory._put("cost", memory.now + 2, torch.tensor([3.0, 103.0]))
    pairs = memory.pairs(1, predicted=True)
    weights = dict(zip(pairs.latents[:, 0, 0].tolist(), pairs.weights.tolist(), strict=True))
    assert weights == {0: 1.0, 100: 1.0, 2: 0.5, 102: 0.5}


def test_what_is_seen_takes_the_place_of_what_was_expected():
    memory = filled(ReplayBuffer(capacity=4, action_dim=2), 9)
    memory.expect(torch.stack([state(9.5, 109.5), state(10.5, 110.5)], dim=1))
    expected, there = memory.expected()
    assert there.all() and expected[:, 0, 0].tolist() == [9.5, 109.5]
    memory.see(state(9, 109))
    assert (~memory._get("predicted", memory.now)).all()
    expected, there = memory.expected()
    assert there.all() and expected[:, 0, 0].tolist() == [10.5, 110.5]
    assert not memory.retrieve(memory.key(state(9.5, 109.5), None), count=1).latents[..., 0].eq(9.5).any()


def test_a_new_episode_expects_nothing():
    memory = filled(ReplayBuffer(capacity=8, action_dim=2), 3)
    memory.expect(state(3, 103)[:, None])
    memory.begin(torch.tensor([0]))
    assert memory.expected()[1].tolist() == [False, True]


def test_half_precision_keeps_half_the_bytes():
    memory = filled(ReplayBuffer(capacity=8, action_dim=2, dtype=torch.float16), 3)
    assert memory._store["latents"].dtype == torch.float16
    memory.see(state(3, 103))
    context = memory.read()
    assert context.latents.dtype == torch.float32
    torch.testing.assert_close(context.latents[:, -1], state(3, 103), rtol=1e-3, atol=1e-3)


def test_its_log_is_what_was_seen_episode_by_episode():
    memory = filled(ReplayBuffer(capacity=32, action_dim=2), 4)
    memory.begin()
    filled(memory, 1, first=4)
    memory.begin()
    filled(memory, 3, first=5)
    log = memory.log()
    assert log.latents[:, 0, 0].tolist() == [0, 1, 2, 3, 5, 6, 7, 100, 101, 102, 103, 105, 106, 107]
    assert log.offsets.tolist() == [0, 4, 7, 11, 14] and log.groups.tolist() == [0, 0, 1, 1]
    assert log.actions[:4, 0].tolist() == [0, 1, 2, 3]


def test_it_comes_back_from_a_folder(tmp_path):
    memory = filled(ReplayBuffer(capacity=8, action_dim=2), 11)
    memory.save(tmp_path / "memory")
    again = ReplayBuffer(capacity=8, action_dim=2)
    again.load(tmp_path / "memory")
    assert all(
        torch.equal(tensor, again._store[name]) or tensor.isnan().any() for name, tensor in memory._store.items()
    )
    filled(again, 1, first=11)
    assert sorted(again.pairs(1).costs.tolist()) == [*range(5, 12), *range(105, 112)]


def test_a_folder_of_another_memory_is_refused(tmp_path):
    filled(ReplayBuffer(capacity=8, action_dim=2), 2).save(tmp_path / "memory")
    with pytest.raises(BadCheckpoint, match="another memory"):
        ReplayBuffer(capacity=9, action_dim=2).load(tmp_path / "memory")
    tensors, facts = load_checkpoint(tmp_path / "memory")
    save_checkpoint(tmp_path / "odd", {"now": tensors["now"]}, facts)
    with pytest.raises(BadCheckpoint, match="another memory"):
        ReplayBuffer(capacity=8, action_dim=2).load(tmp_path / "odd")


def test_keys_have_length_one():
    latents, proprio = torch.randn(3, 4, 5, generator=generator(0)), torch.randn(3, 2, generator=generator(1))
    for key in (pooled_key(latents, None), pooled_key(latents, proprio)):
        torch.testing.assert_close(key.norm(dim=-1), torch.ones(3))


def test_seeing_and_doing_must_alternate():
    memory = ReplayBuffer(capacity=4, action_dim=2)
    with pytest.raises(RuntimeError, match="without a state"):
        memory.did(torch.zeros(2, 2))
    memory.see(state(0, 100))
    with pytest.raises(RuntimeError, match="two states"):
        memory.see(state(1, 101))
    memory.did(torch.zeros(2, 2))
    with pytest.raises(RuntimeError, match="there is no state since the last action"):
        memory.read()
    with pytest.raises(ValueError, match="B=2"):
        memory.see(state(1, 2, 3))
    with pytest.raises(ValueError, match="every state or with none"):
        memory.see(state(1, 101), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="do not fit"):
        memory.expect(torch.zeros(2, 4, 1, WIDTH))
