"""Logs are converted block by block: bounded memory, and the same bytes as if an episode were written at once."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("pyarrow")
pytest.importorskip("h5py")

from pyarrow import parquet

from jepa_mpc.errors import BadEpisode
from jepa_mpc.trajectories.checksums import file_sha256
from jepa_mpc.trajectories.episode import make_episode
from jepa_mpc.trajectories.formats import WRITERS, lerobot_writer, open_log
from jepa_mpc.trajectories.formats import base as formats_base
from jepa_mpc.trajectories.formats.npz import NpzStore, write_episode
from jepa_mpc.trajectories.synthetic import synthetic_log

TARGETS = [("npz", {}), ("robomimic", {}), ("lerobot", {"frames": "h264_lossless"}), ("lerobot", {"frames": "image"})]


def written(log, kind, place, **options):
    """SHA-256 of every file of a conversion."""
    place = WRITERS[kind](log, place / ("log.hdf5" if kind == "robomimic" else "log"), **options)
    files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.is_file())
    return {file.name: file_sha256(file) for file in files}


def peak_mb():
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def grown(work):
    """MB by which the memory of a forked process grows at most."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
            before = peak_mb()
            work()
            os.write(writing, str(peak_mb() - before).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    return float(os.read(reading, 100) or "inf")


@pytest.mark.parametrize("kind, options", TARGETS, ids=str)
def test_blocks_leave_no_trace_in_what_is_written(tmp_path, monkeypatch, kind, options):
    log = NpzStore(synthetic_log(tmp_path / "npz", episodes=3))
    places = [tmp_path / name for name in ("whole", "blocks")]
    for place in places:
        place.mkdir()
    whole = written(log, kind, places[0], **options)
    monkeypatch.setattr(formats_base, "BLOCK_BYTES", 2000)  # one picture, or two
    assert written(log, kind, places[1], **options) == whole


def test_images_of_a_long_episode_are_several_row_groups_of_one_file(tmp_path, monkeypatch):
    log = NpzStore(synthetic_log(tmp_path / "npz", episodes=2, length=12, image_size=32))
    monkeypatch.setattr(lerobot_writer, "GROUP_BYTES", 1000)  # a few pictures
    path = WRITERS["lerobot"](log, tmp_path / "log", frames="image")
    (table,) = (path / "data").rglob("*.parquet")
    assert parquet.ParquetFile(table).metadata.num_row_groups > 4
    again = open_log(path)
    assert again.lengths == log.lengths
    for index, length in enumerate(log.lengths):
        for name in ("observation.images.left", "observation.images.right", "action"):
            assert np.array_equal(again.read(index, 0, length, [name])[name], log.read(index, 0, length, [name])[name])


@pytest.mark.parametrize("kind, options", TARGETS[:3], ids=str)
def test_a_long_episode_is_converted_in_little_memory(tmp_path, kind, options):
    steps, side = 900, 256
    small = np.random.default_rng(0).integers(0, 256, (steps, side // 16, side // 16, 3), dtype=np.uint8)
    frames = np.repeat(np.repeat(small, 16, 1), 16, 2)  # 177 MB
    (tmp_path / "npz").mkdir()
    made = {"proprio": np.zeros((steps, 14)), "actions": np.zeros((steps, 7)), "dt_s": 0.1, "metadata": {}}
    write_episode(tmp_path / "npz/episode_000000.npz", make_episode(frames={"left": frames}, index=0, **made))
    del frames
    (tmp_path / "to").mkdir()
    assert grown(lambda: written(NpzStore(tmp_path / "npz"), kind, tmp_path / "to", **options)) < 120, "MB"


def test_pictures_of_an_episode_of_ours_are_summed_up_although_few_are_kept(tmp_path):
    path = synthetic_log(tmp_path / "npz", episodes=2)
    store, file = NpzStore(path), path / "episode_000001.npz"
    name = next(name for name in store.fields if name.startswith("observation.images."))
    whole = store.read(1, 0, store.lengths[1], [name])[name]
    assert np.array_equal(store.read(1, 2, 5, [name])[name], whole[2:5])
    data = bytearray(file.read_bytes())
    at = data.find(whole[-1].tobytes())
    data[at] ^= 1
    file.write_bytes(bytes(data))
    for log in (store, open_log(path)):
        with pytest.raises(BadEpisode, match=f"field '{name}' is damaged"):
            log.read(1, 0, 1, [name])
