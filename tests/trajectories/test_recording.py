"""Recording: alignment of what was done with what was seen, and logs that survive interruptions in order."""

from __future__ import annotations

import multiprocessing
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch

from jepa_mpc.seeding import numpy_generator
from jepa_mpc.trajectories.episode import ACTION, DONE, EE_POSE, IMAGES
from jepa_mpc.trajectories.formats.npz import NpzStore, episode_path, read_episode, write_episode
from jepa_mpc.trajectories.motion import RandomWalk, Reach
from jepa_mpc.trajectories.recording import publish_staged, record_episode, repair, staged_path, write_manifest
from jepa_mpc.trajectories.synthetic import synthetic_episode, synthetic_log
from jepa_mpc.types import ActionBox

STEP = torch.tensor([0.05, 0.05, 0.05, 0, 0, 0, 0])
BOX = ActionBox(low=-STEP, high=STEP)


class Hand:
    """An environment that is a point; its pictures show the number of steps."""

    cameras, dt_s, action_box = ("left", "right"), 0.25, BOX

    def __init__(self, breaks_at=-1):
        self.breaks_at = breaks_at

    def reset(self, *, seed=None, options=None):
        self.place, self.steps = np.array([0.45, 0.0, 0.2]), 0
        return self.see(), {}

    def step(self, action):
        self.place, self.steps = self.place + action[:3], self.steps + 1
        broken = self.steps == self.breaks_at
        return self.see(), 0.0, broken, False, {"sim_error": "it blew up"} if broken else {}

    def see(self):
        frames = np.full((6, 8, 8), self.steps, np.uint8)
        frames[3:] += 100
        proprio = np.concatenate([np.zeros(7), [0.04], self.place, np.zeros(3)]).astype(np.float32)
        return {"frames": frames, "proprio": proprio}


def record(env, steps=5):
    return record_episode(
        env, lambda: RandomWalk(Reach(box=BOX)), index=0, steps=steps, seed=1, options={}, metadata={"lab_index": 0},
        generator=numpy_generator(0),
    )  # fmt: skip


def test_an_episode_has_as_many_actions_as_observations_and_they_are_aligned():
    arrays = record(Hand()).arrays
    assert {array.shape[0] for array in arrays.values()} == {6}
    assert np.allclose(np.diff(arrays[EE_POSE][:, :3], axis=0), arrays[ACTION][:-1, :3], atol=1e-6)
    assert arrays[IMAGES + "left"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert arrays[IMAGES + "right"][:, 0, 0, 0].tolist() == [100, 101, 102, 103, 104, 105]
    assert arrays[DONE].tolist() == [False] * 5 + [True] and not arrays[ACTION][-1].any()


def test_a_breakdown_ends_the_episode_before_it():
    episode = record(Hand(breaks_at=3))
    assert episode.length == 3 and episode.metadata["ended_by"] == "it blew up"


def test_episodes_are_published_in_order_only(tmp_path):
    for index in (1, 2):
        write_episode(staged_path(tmp_path, index), synthetic_episode(index))
    assert publish_staged(tmp_path, 0) == 0
    write_episode(staged_path(tmp_path, 0), synthetic_episode(0))
    assert publish_staged(tmp_path, 0) == 3
    assert len(NpzStore(tmp_path)) == 3


def test_repair_brings_an_interrupted_log_into_order_and_then_changes_nothing(tmp_path):
    synthetic_log(tmp_path, episodes=5)
    damaged = episode_path(tmp_path, 2)
    damaged.write_bytes(damaged.read_bytes()[:500])
    write_episode(staged_path(tmp_path, 6), synthetic_episode(6))
    killed = tmp_path / ".episode_000007.npz.0.tmp"
    killed.mkdir()
    (killed / "episode_000007.npz").write_bytes(b"half")
    assert repair(tmp_path) == {0, 1, 3, 4, 6}
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    assert len(NpzStore(tmp_path)) == 2 and not any("tmp" in Path(name).name for name in before)
    assert repair(tmp_path) == {0, 1, 3, 4, 6} and before == sorted(str(path) for path in tmp_path.rglob("*"))
    write_episode(staged_path(tmp_path, 2), synthetic_episode(2))
    assert publish_staged(tmp_path, 2) == 5


def test_a_manifest_knows_each_file(tmp_path):
    synthetic_log(tmp_path, episodes=2)
    write_manifest(tmp_path, {0: 8, 1: 9}, {"seed": 3})
    assert len(NpzStore(tmp_path)) == 2


FORKED = multiprocessing.get_context("fork")


def record_on(folder: Path, told: Connection) -> None:
    """Go on with a log until the process is killed, and tell each episode that is saved."""
    good = repair(folder)
    done = len(good) or publish_staged(folder, 0)
    for index in range(done, 100_000):
        write_episode(staged_path(folder, index), synthetic_episode(index, image_size=32))
        done = publish_staged(folder, done)
        told.send(index)


@pytest.mark.parametrize("round_", range(3))
def test_a_killed_recorder_loses_no_saved_episode(tmp_path, round_):
    for attempt in range(2):
        heard, told = FORKED.Pipe(duplex=False)
        worker = FORKED.Process(target=record_on, args=(tmp_path, told))
        worker.start()
        told.close()
        saved = heard.recv()
        time.sleep(0.03 + 0.041 * round_ + 0.017 * attempt)
        worker.kill()
        worker.join()
        with suppress(EOFError):
            while True:
                saved = heard.recv()
        assert repair(tmp_path) >= set(range(saved + 1))
    assert all(read_episode(path).length == 8 for path in NpzStore(tmp_path).paths)
