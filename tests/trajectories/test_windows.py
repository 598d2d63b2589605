"""Windows and the frame bank: alignment, no crossing of episodes, the same bits from the same generator."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch

from jepa_mpc.errors import BadEpisode
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.actions import CommandedActions, PoseDelta
from jepa_mpc.trajectories.bank import load_bank
from jepa_mpc.trajectories.episode import ACTION
from jepa_mpc.trajectories.formats.npz import NpzStore, episode_path
from jepa_mpc.trajectories.rotations import quaternion, rotation_between, rotation_vector
from jepa_mpc.trajectories.stats import action_stats, proprio_stats, stats_of
from jepa_mpc.trajectories.synthetic import synthetic_log
from jepa_mpc.trajectories.windows import Windows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return synthetic_log(tmp_path_factory.mktemp("log"), episodes=6)


@pytest.fixture(scope="module")
def bank(folder):
    return load_bank(folder)


def test_no_window_crosses_an_episode(folder):
    windows = Windows(NpzStore(folder), history=2, horizon=3)
    assert len(windows) == sum(8 + i % 3 - 4 for i in range(6))
    store = NpzStore(folder)
    starts = [(e, s) for e in range(6) for s in range(store.lengths[e] - 4)]
    for index, (episode, start) in enumerate(starts):
        wanted = store.read(episode, start, start + 5, ["observation.state"])["observation.state"]
        assert np.array_equal(windows[index]["proprio"].numpy(), wanted)


def test_action_t_leads_from_observation_t_to_the_next(folder):
    window = Windows(NpzStore(folder), actions=CommandedActions())[0]
    moved = window["proprio"][1:, -6:-3] - window["proprio"][:-1, -6:-3]
    assert window["actions"].shape == (3, 7)
    assert torch.allclose(window["actions"][:, :3], moved, atol=1e-6)


def test_cameras_are_stacked_in_the_order_asked_for(folder):
    store = NpzStore(folder)
    both, swapped = Windows(store)[3]["frames"], Windows(store, cameras=("right", "left"))[3]["frames"]
    assert both.shape == (4, 6, 16, 16) and both.dtype == torch.uint8
    assert torch.equal(both[:, :3], swapped[:, 3:]) and torch.equal(both[:, 3:], swapped[:, :3])


def test_an_unknown_camera_lists_the_known_ones(folder):
    with pytest.raises(ValueError, match="left, right"):
        Windows(NpzStore(folder), cameras=("wrist",))


def test_windows_longer_than_every_episode_are_refused(folder, bank):
    with pytest.raises(ValueError, match="99 steps"):
        Windows(NpzStore(folder), history=1, horizon=98)
    with pytest.raises(ValueError, match="99 steps"):
        bank.sample(2, 99, generator=generator(0))


def test_bank_and_windows_agree(folder, bank):
    windows = Windows(NpzStore(folder))
    starts = [int(bank.offsets[e]) + s for e in range(6) for s in range(8 + e % 3 - 3)]
    batch = bank.windows_at(torch.tensor(starts), 4)
    for index in range(len(windows)):
        assert all(torch.equal(batch[key][index], value) for key, value in windows[index].items())


def test_samples_stay_inside_their_episode_and_reach_every_window(bank):
    batch = bank.sample(4000, 4, generator=generator(1))
    steps = [
        (bank.proprio == row).all(1).nonzero().flatten()[0].item() for row in batch["proprio"][:200, 0]
    ]  # fmt: skip
    first, last = bank.offsets[batch["episode"][:200]], bank.offsets[batch["episode"][:200] + 1]
    places = torch.tensor(steps)
    assert (places >= first).all() and (places + 4 <= last).all()
    assert len(batch["proprio"][:, 0].unique(dim=0)) == bank.num_windows(4)


def test_strided_windows_add_up_the_actions_in_between_and_stay_inside(bank):
    batch = bank.sample(500, 3, generator=generator(4), max_stride=3)
    moved = batch["proprio"][:, 1:, -6:-3] - batch["proprio"][:, :-1, -6:-3]
    assert torch.allclose(batch["actions"][..., :3], moved, atol=1e-6)
    steps = [(bank.proprio == row).all(1).nonzero().flatten()[0] for row in batch["proprio"].flatten(0, 1)]
    places = torch.stack(steps).unflatten(0, (500, 3))
    strides = places.diff(dim=1)
    assert (strides[:, :1] == strides).all() and strides.unique().tolist() == [1, 2, 3]
    assert (places < bank.offsets[batch["episode"] + 1][:, None]).all()


def test_the_same_generator_draws_the_same_batch(bank):
    one, two = (bank.sample(8, 3, generator=generator(7, "batch", 3)) for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_split_keeps_labs_together_and_loses_nothing(bank):
    train, held = bank.split(0.34, generator=generator(0))
    sides = [set(bank.groups[side.episodes].tolist()) for side in (train, held)]
    assert not sides[0] & sides[1] and train.num_steps + held.num_steps == bank.num_steps == 54
    assert set(held.sample(500, 2, generator=generator(2))["episode"].tolist()) == set(held.episodes.tolist())


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_split_with_an_empty_side_is_refused(bank, share):
    with pytest.raises(ValueError, match="groups"):
        bank.split(share, generator=generator(0))


def test_a_bank_is_built_once_and_again_when_the_log_changes(tmp_path):
    folder = synthetic_log(tmp_path, episodes=2)
    seen = []

    def count(episodes):
        seen.append(len(episodes))
        return episodes

    load_bank(folder, progress=count)
    load_bank(folder, progress=count)
    synthetic_log(tmp_path, episodes=3)
    assert load_bank(folder, progress=count).num_steps == 27
    assert seen == [2, 3]


def test_two_processes_may_build_the_same_bank(tmp_path):
    folder = synthetic_log(tmp_path, episodes=4)
    context = multiprocessing.get_context("fork")
    helpers = [context.Process(target=load_bank, args=(folder,)) for _ in range(3)]
    for helper in helpers:
        helper.start()
    for helper in helpers:
        helper.join(60)
    assert [helper.exitcode for helper in helpers] == [0, 0, 0]
    assert load_bank(folder).num_steps == 8 + 9 + 10 + 8


def test_a_damaged_episode_leaves_no_bank(tmp_path):
    folder = synthetic_log(tmp_path, episodes=3)
    path = episode_path(folder, 2)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(BadEpisode, match="episode_000002"):
        load_bank(folder)
    assert not list((folder / ".cache").glob("*/cache.json"))


def test_pose_differences_are_the_measured_motion(folder):
    columns = NpzStore(folder).episode(1).arrays
    actions = PoseDelta()(columns)
    assert np.allclose(actions[:, :3], columns[ACTION][:-1, :3], atol=1e-6)
    assert np.allclose(actions[:, 6], 0.0)


def test_rotation_between_two_attitudes_undoes_to_the_second():
    draws = np.random.default_rng(0)
    start, turn = draws.normal(size=(50, 3)), draws.normal(size=(50, 3)) * 0.8
    matrix = np.array([_matrix(t) @ _matrix(s) for t, s in zip(turn, start, strict=True)])
    stop = np.array([_vector(m) for m in matrix])
    assert np.allclose(rotation_between(start, stop), turn, atol=1e-6)
    assert np.allclose(rotation_vector(quaternion(np.zeros(3))), 0.0)


def test_statistics_restore_what_they_normalised(bank):
    stats = action_stats(bank)
    rows = torch.randn(10_000, 7, generator=generator(0)) * 3
    assert torch.allclose(stats.restore(stats.normalise(rows)), rows, rtol=1e-6, atol=1e-6)
    assert stats.std[6] == 1.0 and proprio_stats(bank).mean.shape == (14,)
    flat = torch.cat([bank.actions[a : b - 1] for a, b in zip(bank.offsets[:-1], bank.offsets[1:], strict=True)])
    assert torch.allclose(stats.normalise(flat)[:, :3].std(0), torch.ones(3), atol=1e-4)


def test_statistics_of_one_row_are_refused():
    with pytest.raises(ValueError, match="G >= 2"):
        stats_of(torch.zeros(1, 3))


def _matrix(vector):
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _vector(matrix):
    angle = np.arccos(np.clip((np.trace(matrix) - 1) / 2, -1, 1))
    skew = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    return angle * skew / (2 * np.sin(angle))
