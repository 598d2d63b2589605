"""The cache: the log's own bits, made once, resumed after a kill, refused when damaged, made anew when it must be."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jepa_mpc.errors import BadEpisode
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.actions import CommandedActions, JointVelocity, PoseDelta
from jepa_mpc.trajectories.bank import bank_of, load_bank
from jepa_mpc.trajectories.buffers import Buffers
from jepa_mpc.trajectories.cache import FRAMES, INDEX, Cache, CacheOptions, told
from jepa_mpc.trajectories.episode import ACTION, EE_POSE, STATE, TIMESTAMP
from jepa_mpc.trajectories.formats import open_log
from jepa_mpc.trajectories.formats.layouts import LAYOUTS
from jepa_mpc.trajectories.formats.npz import NpzStore, episode_path, write_episode
from jepa_mpc.trajectories.ingest import cache_place, ingest
from jepa_mpc.trajectories.mixture import mixed
from jepa_mpc.trajectories.resizing import PictureFit
from jepa_mpc.trajectories.robots import MappedLog, guess_robot, robot_map
from jepa_mpc.trajectories.synthetic import synthetic_episode, synthetic_log
from jepa_mpc.trajectories.windows import Windows

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return synthetic_log(tmp_path_factory.mktemp("log"), episodes=5)


@pytest.fixture(scope="module")
def cache(folder):
    return ingest(folder)


def noted(episodes, seen):
    for episode in episodes:
        seen.append(episode)
        yield episode


def test_a_cache_gives_what_the_log_gives(folder, cache):
    log = MappedLog(NpzStore(folder))
    names = [name for name in log.fields if not name.startswith("observation.images")]
    names += ["observation.images.left", "observation.images.right"]
    assert cache.lengths == log.lengths and cache.cameras == log.cameras and cache.dt_s == log.dt_s
    for episode in range(5):
        theirs, ours = (one.read(episode, 1, log.lengths[episode], names) for one in (log, cache))
        assert all(
            np.array_equal(theirs[name], ours[name]) and theirs[name].dtype == ours[name].dtype for name in names
        )
        assert cache.metadata(episode) == log.metadata(episode)


@pytest.mark.parametrize("skip, blocks", [(1, "joined"), (2, "joined"), (2, "stacked")])
def test_windows_of_cache_log_and_bank_are_the_same_bits(folder, cache, skip, blocks):
    read, mapped = (
        Windows(one, history=1, horizon=2, skip=skip, blocks=blocks) for one in (MappedLog(NpzStore(folder)), cache)
    )
    bank = replace(bank_of(cache, PoseDelta()), skip=skip, blocks=blocks)
    starts = [int(bank.offsets[e]) + s for e in range(5) for s in range(cache.lengths[e] - 2 * skip)]
    assert len(read) == len(starts) == bank.num_windows(3)
    batch = bank.windows_at(torch.tensor(starts), 3)
    for index in range(len(read)):
        assert all(torch.equal(read[index][key], mapped[index][key]) for key in ("frames", "actions", "proprio"))
        assert torch.equal(batch["frames"][index], read[index]["frames"])
        torch.testing.assert_close(batch["actions"][index], read[index]["actions"], atol=1e-7, rtol=0)


def test_stacked_blocks_hold_every_action_in_order(folder):
    bank = replace(load_bank(folder, actions=CommandedActions()), skip=3, blocks="stacked")
    assert bank.action_dim == 21 and bank.step_s == pytest.approx(0.75)
    window = bank.windows_at(torch.tensor([1]), 2)
    assert torch.equal(window["actions"][0, 0].unflatten(0, (3, 7)), bank.actions[1:4])
    with pytest.raises(ValueError, match="max_stride to 1"):
        bank.sample(2, 2, generator=generator(0), max_stride=2)


def test_speeds_over_several_steps_are_averaged_and_motions_added(folder):
    for part, factor in ((JointVelocity(column=f"{STATE}[0:7]"), 0.5), (PoseDelta(), 1.0)):
        bank = load_bank(folder, actions=part)
        wide = replace(bank, skip=2).windows_at(torch.tensor([0]), 2)["actions"][0, 0]
        torch.testing.assert_close(wide, bank.actions[:2].sum(0) * factor, atol=1e-6, rtol=0)


def test_windows_that_skip_steps_stay_in_their_episode(cache):
    bank = replace(bank_of(cache, PoseDelta()), skip=3)
    batch = bank.sample(400, 3, generator=generator(1))
    rows = batch["proprio"].flatten(0, 1)
    steps = torch.cdist(rows, bank.proprio.clone()).argmin(1).unflatten(0, (400, 3))
    assert (steps.diff(dim=1) == 3).all()
    assert (steps[:, 0] >= bank.offsets[batch["episode"]]).all()
    assert (steps[:, -1] < bank.offsets[batch["episode"] + 1]).all()


def test_the_sampling_streams_of_earlier_banks_are_kept(tmp_path):
    """The digest was taken from the bank as it was before there were caches, on the same log."""
    bank = load_bank(synthetic_log(tmp_path, episodes=6, length=14))
    digest = hashlib.sha256()
    for side in bank.split(0.34, generator=generator(0, "validation labs")):
        for number, stride in ((0, 1), (1, 3)):
            batch = side.sample(16, 4, generator=generator(5, "batch", number), max_stride=stride)
            for name in sorted(batch):
                digest.update(batch[name].contiguous().numpy().tobytes())
    assert digest.hexdigest() == "14c147800f69c8262065d541f56202b9ff47a60f0acd1a272033db1f0f26cb01"


def test_an_earlier_bank_is_used_as_long_as_it_is_true(folder, tmp_path):
    """Its frames are marked, so that one sees where they come from."""
    log = synthetic_log(tmp_path, episodes=2)
    made = load_bank(log)
    place = log / ".bank" / _earlier_key(log)
    place.mkdir(parents=True)
    parts = {name: getattr(made, name).numpy() for name in ("actions", "proprio", "offsets", "groups")}
    for name, array in {**parts, "frames": np.full(made.frames.shape, 7, np.uint8)}.items():
        np.save(place / f"{name}.npy", array)
    facts = {"version": 1, "cameras": ["left", "right"], "dt_s": 0.25, "actions": "pose_delta"}
    (place / "bank.json").write_text(json.dumps(facts))
    assert (load_bank(log).frames == 7).all()
    assert not (load_bank(log, actions=CommandedActions()).frames == 7).all()
    write_episode(episode_path(log, 1), synthetic_episode(1, length=6))
    assert not (load_bank(log).frames == 7).all()


def test_a_cache_is_made_once(folder, cache, monkeypatch):
    monkeypatch.setattr("jepa_mpc.trajectories.ingest.make_plan", lambda *_: pytest.fail("the log was read again"))
    assert ingest(folder).path == cache.path


def test_processes_make_the_same_bits_as_one(folder, cache, tmp_path):
    other = ingest(folder, place=tmp_path / "cache", workers=2)
    assert (other.path / FRAMES).read_bytes() == (cache.path / FRAMES).read_bytes()
    assert other.index["files"] == cache.index["files"]


@pytest.mark.parametrize("change, words", [
    (lambda log, _: write_episode(episode_path(log, 2), synthetic_episode(2, length=9)), "the log has changed"),
    (lambda log, _: write_episode(episode_path(log, 0), synthetic_episode(0, seed=5)), "the log has changed"),
    (lambda _, place: (place / "column_00.bin").write_bytes(b"x"), "has 1 bytes"),
    (lambda _, place: _flip(place / "column_00.bin"), "differs from its checksum"),
])  # fmt: skip
def test_a_cache_is_made_anew_with_the_reason(tmp_path, caplog, change, words):
    log, place = synthetic_log(tmp_path / "log", episodes=2), tmp_path / "cache"
    ingest(log, place=place)
    change(log, place)
    with caplog.at_level(logging.WARNING):
        again = ingest(log, place=place)
    assert len(caplog.records) == 1 and words in caplog.records[0].getMessage()
    assert again.lengths == NpzStore(log).lengths
    again.check()


def test_other_options_at_the_same_place_make_it_anew(folder, tmp_path, caplog):
    ingest(folder, place=tmp_path / "cache")
    smaller = ingest(folder, options=CacheOptions(image_size=8), place=tmp_path / "cache")
    assert smaller.frames.shape[-2:] == (8, 8) and "other image_size" in caplog.text


def test_a_wider_cache_serves_one_camera(folder, cache):
    bank = load_bank(folder, cameras=("right",))
    assert bank.frames.shape[1] == 3 and torch.equal(bank.frames, torch.from_numpy(cache.frames)[:, 3:])
    assert not cache_place(folder, CacheOptions(cameras=("right",))).exists()


def test_cameras_in_another_order_get_a_cache_of_their_own(folder, cache):
    swapped = load_bank(folder, cameras=("right", "left"))
    assert torch.equal(swapped.frames[:, :3], torch.from_numpy(cache.frames)[:, 3:])
    with pytest.raises(ValueError, match="left, right"):
        load_bank(cache.path, cameras=("right", "left"))


def test_a_finished_cache_opens_without_its_log(tmp_path):
    log = synthetic_log(tmp_path / "log", episodes=2)
    place = ingest(log, place=tmp_path / "cache").path
    for path in log.glob("*.npz"):
        path.unlink()
    assert load_bank(place).num_steps == 17


@pytest.mark.parametrize("harm, words", [
    (lambda p: (p / INDEX).write_text((p / INDEX).read_text().replace('"dt_s": 0.25', '"dt_s": 0.26')), "content"),
    (lambda p: (p / INDEX).write_bytes(b"{"), "unreadable"),
    (lambda p: os.truncate(p / FRAMES, 100), "100 bytes"),
    (lambda p: (p / "column_01.bin").unlink(), "is missing"),
    (lambda p: _flip(p / "column_00.bin"), "checksum"),
    (lambda p: (p / "episodes.jsonl").write_text(""), "bytes"),
])  # fmt: skip
def test_a_damaged_cache_is_refused(folder, tmp_path, harm, words):
    place = ingest(folder, place=tmp_path / "cache").path
    harm(place)
    with pytest.raises(BadEpisode, match=words):
        Cache(place)


def test_a_flipped_bit_in_a_picture_is_found_by_the_check(folder, tmp_path):
    cache = ingest(folder, place=tmp_path / "cache")
    cache.check()
    at = int(cache.offsets[3]) * cache.frames[0].size
    _flip(cache.path / FRAMES, at=at)
    with pytest.raises(BadEpisode, match="episode 3: field 'frames'"):
        Cache(cache.path).check()


def test_a_damaged_episode_keeps_the_others_for_the_next_attempt(tmp_path):
    log = synthetic_log(tmp_path / "log", episodes=4)
    good = episode_path(log, 2).read_bytes()
    stamp = episode_path(log, 2).stat()
    _flip(episode_path(log, 2), at=len(good) // 2)
    os.utime(episode_path(log, 2), ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(BadEpisode, match="episode_000002"):
        ingest(log, place=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    episode_path(log, 2).write_bytes(good)
    os.utime(episode_path(log, 2), ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    seen: list[int] = []
    ingest(log, place=tmp_path / "cache", progress=lambda todo: noted(todo, seen)).check()
    assert seen == [2, 3]


def test_damaged_episodes_can_be_left_out(tmp_path):
    log = synthetic_log(tmp_path, episodes=4)
    _flip(episode_path(log, 2), at=3000)
    cache = ingest(log, options=CacheOptions(leave_out=(2,)))
    assert cache.lengths == [8, 9, 8] and cache.index["episodes"] == [0, 1, 3]


def test_a_killed_ingest_goes_on_where_it_was(tmp_path):
    """Killed when a few episodes are noted; the journal's last line may be torn."""
    log = synthetic_log(tmp_path / "log", episodes=40, image_size=64)
    slowly = {"place": tmp_path / "cache", "progress": lambda todo: (time.sleep(0.02) or i for i in todo)}
    worker = multiprocessing.get_context("fork").Process(target=ingest, args=(log,), kwargs=slowly)
    worker.start()
    journal = tmp_path / ".cache.draft" / "episodes.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (journal.exists() and journal.read_text().count("\n") >= 3):
        time.sleep(0.005)
    worker.kill()
    worker.join()
    done = journal.read_text().count("\n")
    assert 3 <= done < 40
    with journal.open("a") as file:
        file.write('{"place": 39, "fra')
    seen: list[int] = []
    cache = ingest(log, place=tmp_path / "cache", progress=lambda todo: noted(todo, seen))
    assert len(seen) == 40 - done and not journal.exists()
    cache.check()
    assert (cache.path / FRAMES).read_bytes() == (ingest(log, place=tmp_path / "other").path / FRAMES).read_bytes()


def test_a_full_disk_is_told_before_anything_is_read(folder, tmp_path, monkeypatch):
    def full(handle: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("jepa_mpc.trajectories.draft.os.posix_fallocate", full)
    with pytest.raises(OSError, match="the cache needs .* GB"):
        ingest(folder, place=tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == [".cache.lock"]


def test_a_log_that_changes_while_it_is_read_is_noticed(tmp_path):
    log = synthetic_log(tmp_path / "log", episodes=2)

    def meddle(todo):
        yield from todo
        write_episode(episode_path(log, 0), synthetic_episode(0, seed=9))

    with pytest.raises(BadEpisode, match="changed while it was read"):
        ingest(log, place=tmp_path / "cache", progress=meddle)


@pytest.mark.parametrize("options, words", [
    (CacheOptions(cameras=("wrist",)), "left, right"),
    (CacheOptions(leave_out=(99,)), "cannot leave out"),
    (CacheOptions(robot=told({"state": ["observation.hat"]})), "observation.hat"),
])  # fmt: skip
def test_what_a_log_does_not_have_is_refused(folder, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        ingest(folder, options=options, place=tmp_path / "cache")
    with pytest.raises(ValueError, match="image_size"):
        CacheOptions(image_size=0).fit  # noqa: B018


def test_long_episodes_are_taken_in_pieces(folder, cache, tmp_path, monkeypatch):
    monkeypatch.setattr("jepa_mpc.trajectories.draft.PIECE_BYTES", 3 * 2 * 16 * 16 * 3)
    pieces = ingest(folder, place=tmp_path / "cache")
    pieces.check()
    assert (pieces.path / FRAMES).read_bytes() == (cache.path / FRAMES).read_bytes()


def test_statistics_are_those_of_the_columns(cache):
    for name in (STATE, EE_POSE, ACTION, TIMESTAMP):
        rows, noted_ = (
            cache.rows(name).reshape(cache.offsets[-1], -1).astype(np.float64),
            cache.index["statistics"][name],
        )
        assert np.allclose(noted_["mean"], rows.mean(0)) and np.allclose(noted_["std"], rows.std(0), atol=1e-9)
        assert np.array_equal(noted_["low"], rows.min(0)) and np.array_equal(noted_["high"], rows.max(0))


def test_pictures_shrink_by_the_mean_of_what_a_pixel_covers():
    picture = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    mean = picture.reshape(2, 4, 3, 4, 3, 3).mean((2, 4))
    assert np.abs(PictureFit(size=4)(picture) - mean).max() <= 1.0  # rounding
    assert PictureFit(size=12)(picture) is picture and PictureFit()(picture) is picture


def test_pictures_become_square_by_cutting_or_stretching():
    picture = np.zeros((1, 8, 16, 3), dtype=np.uint8)
    picture[:, :, 4:12] = 255
    assert (PictureFit(size=4)(picture) == 255).all()
    stretched = PictureFit(size=4, aspect="stretch")(picture)
    assert (stretched[:, :, 1:3] == 255).all() and (stretched[:, :, [0, 3]] == 0).all()
    assert PictureFit(size=20)(picture).shape == (1, 20, 20, 3)


def test_buffers_are_used_again(cache):
    bank, held = bank_of(cache, PoseDelta()), Buffers()
    fresh = [bank.sample(4, 3, generator=generator(0, i)) for i in range(2)]
    reused = []
    for i in range(2):
        batch = bank.sample(4, 3, generator=generator(0, i), into=held)
        assert all(torch.equal(batch[name], fresh[i][name]) for name in batch)
        reused.append(batch["frames"].data_ptr())
    assert reused[0] == reused[1]


def test_a_mixture_draws_by_weight_and_keeps_its_parts_apart(folder, tmp_path):
    other = synthetic_log(tmp_path, episodes=3, seed=4)
    both = mixed([load_bank(folder), load_bank(other)], [1.0, 3.0])
    batch = both.sample(4000, 3, generator=generator(0))
    share = (batch["episode"] >= 5).float().mean()
    assert share == pytest.approx(0.75, abs=0.03)  # 4000 draws spread by 0.007
    assert both.num_steps == load_bank(folder).num_steps + load_bank(other).num_steps
    second = both.banks[1].proprio
    places = (batch["proprio"][:200, 0, None] == second).all(-1).any(1)
    assert torch.equal(places, batch["episode"][:200] >= 5)
    again = both.sample(4000, 3, generator=generator(0))
    assert all(torch.equal(batch[name], again[name]) for name in batch)


def test_logs_that_do_not_go_together_are_not_mixed(folder, tmp_path):
    small = load_bank(folder, options=CacheOptions(image_size=8))
    with pytest.raises(ValueError, match="picture is"):
        mixed([load_bank(folder), small], [1, 1])
    with pytest.raises(ValueError, match="positive weights"):
        mixed([small], [0])
    with pytest.raises(ValueError, match="steps of 0.25 s"):
        slow = CacheOptions(robot=told({"hz": 2}))
        mixed([load_bank(folder), load_bank(folder, options=slow)], [1, 1])


@pytest.mark.parametrize("kind", sorted(LAYOUTS))
def test_every_format_can_be_ingested(folder, tmp_path, kind):
    pytest.importorskip("av")
    pytest.importorskip("pyarrow")
    pytest.importorskip("mcap_ros2")
    made = LAYOUTS[kind](NpzStore(folder), tmp_path / kind)
    reader = open_log(made)
    entries = {} if reader.dt_s > 0 else {"hz": 4.0}
    log = MappedLog(reader, robot=robot_map({**guess_robot(reader).to_dict(), **entries}))
    cache = ingest(made, options=CacheOptions(robot=told(entries)), place=tmp_path / "cache")
    assert list(cache.lengths) == list(log.lengths)
    for episode in range(len(log.lengths)):
        names = [f"observation.images.{cache.cameras[0]}", STATE]
        theirs, ours = (one.read(episode, 0, log.lengths[episode], names) for one in (log, cache))
        assert all(np.array_equal(theirs[name], ours[name]) for name in names)


def _flip(path, *, at=40):
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def _earlier_key(log):
    stats = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(log.glob("*.npz"))]
    text = json.dumps([1, stats, ["observation.images.left", "observation.images.right"], "pose_delta"])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("place", [".", "log", "other", "thesis.txt"])
def test_a_cache_replaces_nothing_but_a_cache(tmp_path, place):
    folder = synthetic_log(tmp_path / "log", episodes=2)
    (tmp_path / "other").mkdir()
    for path in (tmp_path / "other/data.txt", tmp_path / "thesis.txt"):
        path.write_text("years of work")
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    with pytest.raises(FileExistsError, match="holds the log itself|something other than a cache"):
        ingest(folder, place=tmp_path / place)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


def test_a_cache_may_be_made_where_one_or_nothing_is(tmp_path):
    folder = synthetic_log(tmp_path / "log", episodes=2)
    (tmp_path / "cache").mkdir()
    for options in (CacheOptions(), CacheOptions(image_size=4)):
        assert ingest(folder, options=options, place=tmp_path / "cache").index["options"] == options.to_dict()
    (tmp_path / "cache/notes.txt").write_text("mine")
    ingest(folder, options=options, place=tmp_path / "cache")  # nothing is replaced
    with pytest.raises(FileExistsError, match="notes.txt is not part of the cache there"):
        ingest(folder, place=tmp_path / "cache")
    assert (tmp_path / "cache/notes.txt").read_text() == "mine"


@pytest.mark.parametrize("cameras", ["left", ("left", "left"), (3,)])
def test_cameras_are_different_names(cameras):
    with pytest.raises(ValueError, match="cameras must be a list of names|each camera can be taken once"):
        CacheOptions(cameras=cameras)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_logs_are_mixed_by_positive_weights(folder, weight):
    bank = load_bank(folder)
    with pytest.raises(ValueError, match="as many positive weights"):
        mixed([bank, bank], [1.0, weight])
