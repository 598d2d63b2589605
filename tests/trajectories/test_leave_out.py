"""One bad episode of a log can be left out, in every format, and is named until it is."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

pytest.importorskip("av")
pytest.importorskip("pyarrow")
pytest.importorskip("mcap_ros2")

from jepa_mpc.errors import BadEpisode
from jepa_mpc.trajectories.cache import CacheOptions, told
from jepa_mpc.trajectories.checksums import checksums_path
from jepa_mpc.trajectories.formats import open_log
from jepa_mpc.trajectories.formats.layouts import LAYOUTS
from jepa_mpc.trajectories.formats.npz import NpzStore
from jepa_mpc.trajectories.formats.videos import VideoEncoder
from jepa_mpc.trajectories.ingest import ingest
from jepa_mpc.trajectories.inspection import inspect_log
from jepa_mpc.trajectories.robots import MappedLog
from jepa_mpc.trajectories.synthetic import synthetic_log


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without(group):
    def damage(path):
        with h5py.File(path, "r+") as file:
            del file[group]

    return damage


def wrong_times(path):
    from jepa_mpc.trajectories.formats.tables import Table, write_table

    held = Table(path)
    columns = {name: held.array(name) for name in held.columns}
    columns["timestamp"] = np.where(columns["episode_index"] == BAD, 3, 1).astype(np.float32) * columns["timestamp"]
    write_table(path, columns)


BAD = 1
DAMAGES = {
    "npz": ("episode_000001.npz", cut),
    "lerobot": ("data/chunk-000/file-000.parquet", wrong_times),
    "lerobot_v21": ("data/chunk-000/episode_000001.parquet", cut),
    "droid": ("lab/success/2024-01-02/episode_001/trajectory.h5", cut),
    "robomimic": ("", without("data/demo_1/actions")),
    "minari": ("data/main_data.hdf5", without("episode_1/actions")),
    "hdf5": ("episode_1.hdf5", cut),
    "films": ("episode_1/table.parquet", cut),
    "clips": ("film_1.mp4", cut),
    "mcap": ("episode_1.mcap", cut),
    "pictures": ("file_1.png", cut),
    "clouds": ("file_1.npy", cut),
    "sounds": ("file_1.wav", cut),
}


def one_file(name, place, index):
    """A file of a folder whose files are episodes."""
    place.mkdir(exist_ok=True)
    draws = np.random.default_rng(index)
    if name == "pictures":
        Image.fromarray(draws.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(place / f"file_{index}.png")
    elif name == "clouds":
        np.save(place / f"file_{index}.npy", draws.standard_normal((40, 3)))
    else:
        wavfile.write(place / f"file_{index}.wav", 1000, draws.standard_normal(500).astype(np.float32))


def make(name, ours, place):
    if name == "npz":
        return ours
    if name in ("pictures", "clouds", "sounds"):
        for index in range(3):
            one_file(name, place, index)
        return place
    if name != "clips":
        return LAYOUTS[name](NpzStore(ours), place)
    for index in range(3):
        with VideoEncoder(place / f"film_{index}.mp4", fps=4, codec="h264_lossless") as film:
            film.write(np.full((8, 16, 16, 3), index, np.uint8))
    return place


@pytest.mark.parametrize("bad", [1, 0])
@pytest.mark.parametrize("name", DAMAGES)
def test_a_bad_episode_is_named_and_left_out(name, bad, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.BAD", bad)
    path = make(name, synthetic_log(tmp_path / "npz", episodes=3), tmp_path / "log")
    checksums_path(path).unlink(missing_ok=True)
    file, damage = DAMAGES[name]
    damage_place = file.replace("000001", f"{bad:06d}").replace("_1.", f"_{bad}.").replace("_1/", f"_{bad}/")
    damage_place = damage_place.replace("_001/", f"_{bad:03d}/").replace("01-02", f"01-0{bad + 1}")
    if name in ("robomimic", "minari"):
        damage = without(f"data/demo_{bad}/actions" if name == "robomimic" else f"episode_{bad}/actions")
    victim = path / damage_place if file else path
    damage(victim if victim.exists() else victim.with_suffix(".csv"))

    robot = told({"hz": 4.0})
    report = inspect_log(MappedLog(open_log(path)))
    assert list(report.damaged) == [bad]
    with pytest.raises(BadEpisode, match=r"field '"):
        ingest(path, options=CacheOptions(robot=robot))
    cache = ingest(path, options=CacheOptions(robot=robot, leave_out=(bad,)))
    assert len(cache) == 2 and cache.index["episodes"] == [index for index in range(3) if index != bad]
