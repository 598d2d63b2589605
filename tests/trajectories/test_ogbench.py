"""OGBench data sets: arrays end to end, compressed, in one file or several."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_mpc.errors import BadEpisode
from jepa_mpc.trajectories.episode import ACTION, IMAGES, STATE
from jepa_mpc.trajectories.formats import detect, open_log
from jepa_mpc.trajectories.formats import ogbench as ogbench_module

DRAWS = np.random.default_rng(0)
LENGTHS = (7, 4, 9)
PIXELS = IMAGES + "pixels"


def arrays(lengths=LENGTHS, *, pictures=True):
    total = sum(lengths)
    frames = DRAWS.integers(0, 256, (total, 8, 8, 3), dtype=np.uint8)
    return {
        "observations": frames if pictures else DRAWS.normal(size=(total, 4)).astype(np.float32),
        "actions": DRAWS.normal(size=(total, 5)).astype(np.float32),
        "terminals": np.concatenate([np.arange(n) == n - 1 for n in lengths]).astype(np.float32),
        "qpos": DRAWS.normal(size=(total, 9)),
    }


@pytest.fixture(params=[np.savez, np.savez_compressed])
def made(request, tmp_path):
    """A file and what it holds."""
    held, path = arrays(), tmp_path / "cube-v0.npz"
    request.param(path, **held)
    return path, held


def test_episodes_end_where_terminals_say(made):
    path, held = made
    log = open_log(path)
    assert detect(path) == "ogbench" and log.lengths == list(LENGTHS) and log.cameras == ("pixels",)
    for index in (2, 0, 1):  # backwards, too
        first = sum(LENGTHS[:index])
        got = log.read(index, 1, LENGTHS[index], [PIXELS, ACTION, "observation.qpos"])
        rows = slice(first + 1, first + LENGTHS[index])
        for name, theirs in ((PIXELS, "observations"), (ACTION, "actions"), ("observation.qpos", "qpos")):
            assert np.array_equal(got[name], held[theirs][rows]) and got[name].dtype == held[theirs].dtype


def test_terminals_are_looked_at_in_pieces(made, monkeypatch):
    monkeypatch.setattr(ogbench_module, "PIECE", 3)
    assert open_log(made[0]).lengths == list(LENGTHS)


def test_the_last_episode_may_lack_its_end(tmp_path):
    held = arrays(pictures=False)
    held["terminals"][-1] = 0
    np.savez(tmp_path / "maze-v0.npz", **held)
    log = open_log(tmp_path / "maze-v0.npz")
    assert log.lengths == list(LENGTHS) and log.fields[STATE].shape == (4,)


def test_a_folder_holds_training_and_validation(made):
    path, _ = made
    np.savez(path.with_name("cube-v0-val.npz"), **arrays((3, 5)))
    log = open_log(path.parent)
    assert detect(path.parent) == "ogbench" and log.lengths == [*LENGTHS, 3, 5]
    assert [log.metadata(i)["split"] for i in (2, 3)] == ["train", "validation"]


def test_files_that_differ_are_refused(made):
    path, _ = made
    np.savez(path.with_name("cube-v0-val.npz"), **arrays((3, 5), pictures=False))
    with pytest.raises(BadEpisode, match=r"cube-v0-val.npz: field 'observations' is .* in cube-v0.npz it is"):
        open_log(path.parent)


def missing(held):
    del held["terminals"]


def short(held):
    held["actions"] = held["actions"][:-1]


def unmarked(held):
    held["terminals"][3] = np.nan


def objects(held):
    held["qpos"] = np.array([{}] * len(held["qpos"]), dtype=object)


@pytest.mark.parametrize(
    "change, word", [(missing, "terminals"), (unmarked, "terminals"), (short, "actions"), (objects, "qpos")]
)
def test_a_file_that_is_none_is_refused(tmp_path, change, word):
    held = arrays(pictures=False)
    change(held)
    np.savez(tmp_path / "cube-v0.npz", **held)
    with pytest.raises(BadEpisode, match=f"cube-v0.npz: field '{word}'"):
        open_log(tmp_path / "cube-v0.npz")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(made, share):
    data = made[0].read_bytes()
    made[0].write_bytes(data[: int(share * len(data))])
    with pytest.raises(BadEpisode, match="cube-v0.npz: field"):
        open_log(made[0])


def test_a_bad_episode_leaves_the_others(made):
    path, held = made
    held["actions"][8] = np.nan
    np.savez(path, **held)
    log = open_log(path)
    with pytest.raises(BadEpisode, match="episode 1.*'action' is not finite"):
        log.read(1, 0, 4, [ACTION])
    assert log.read(2, 0, 9, [ACTION])[ACTION].shape == (9, 5)


@pytest.mark.parametrize("marks, word", [(0, "observations"), (1, "terminals")])
def test_zeros_that_unpack_to_much_are_refused(tmp_path, marks, word):
    total = 3_000_000
    held = {"observations": np.zeros((total, 64), np.uint8), "actions": np.zeros((total, 1), np.uint8)}
    np.savez_compressed(tmp_path / "bomb-v0.npz", terminals=np.full(total, marks, np.uint8), **held)
    with pytest.raises(BadEpisode, match=f"bomb-v0.npz: field '{word}' needs .* bytes at once"):
        open_log(tmp_path / "bomb-v0.npz").read(0, 0, total, [STATE])
