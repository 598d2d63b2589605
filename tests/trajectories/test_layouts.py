"""The layouts of others: LeRobot's field by field as documented, Minari's as its own package writes it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jepa_mpc.errors import BadEpisode, MissingPackage
from jepa_mpc.trajectories.episode import ACTION, IMAGES, STATE
from jepa_mpc.trajectories.formats import detect, open_log
from jepa_mpc.trajectories.formats.hdf5 import Hdf5Reader
from jepa_mpc.trajectories.formats.npz import NpzStore
from jepa_mpc.trajectories.robots import MappedLog, RobotMap
from jepa_mpc.trajectories.synthetic import synthetic_log


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return NpzStore(synthetic_log(tmp_path_factory.mktemp("log"), episodes=3))


@pytest.fixture(scope="module")
def lerobot(log, tmp_path_factory):
    pytest.importorskip("av")
    pytest.importorskip("pyarrow")
    from jepa_mpc.trajectories.formats.lerobot_writer import write_lerobot

    return write_lerobot(log, tmp_path_factory.mktemp("v3") / "log", frames="h264")


def test_lerobot_info_has_what_the_format_asks_for(lerobot):
    info = json.loads((lerobot / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"], info["total_frames"]) == ("v3.0", 4, 3, 27)
    assert info["data_path"] == "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    assert info["video_path"] == "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    assert info["features"][IMAGES + "left"]["dtype"] == "video"
    assert info["features"][IMAGES + "left"]["names"] == ["height", "width", "channels"]
    assert info["features"][ACTION] == {"dtype": "float32", "shape": [7], "names": None}
    for name, dtype in (("timestamp", "float32"), ("frame_index", "int64"), ("episode_index", "int64"),
                        ("index", "int64"), ("task_index", "int64")):  # fmt: skip
        assert info["features"][name] == {"dtype": dtype, "shape": [1], "names": None}
    assert {"chunks_size", "data_files_size_in_mb", "video_files_size_in_mb", "splits", "robot_type"} <= info.keys()


def test_lerobot_tables_have_the_documented_columns_and_types(lerobot):
    from pyarrow import parquet

    schema = parquet.read_schema(lerobot / "data/chunk-000/file-000.parquet")
    kinds = {name: str(schema.field(name).type) for name in schema.names}
    assert kinds["timestamp"] == "float" and kinds["next.done"] == "bool"
    assert {kinds[name] for name in ("frame_index", "episode_index", "index", "task_index")} == {"int64"}
    assert kinds[ACTION].startswith("fixed_size_list") and kinds[ACTION].endswith("[7]")
    entries = parquet.read_table(lerobot / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    video = f"videos/{IMAGES}left"
    assert [entry["dataset_from_index"] for entry in entries] == [0, 8, 17]
    assert [entry[f"{video}/from_timestamp"] for entry in entries] == [0.0, 2.0, 4.25]
    assert [entry[f"{video}/to_timestamp"] for entry in entries] == [2.0, 4.25, 6.75]
    assert {f"{video}/chunk_index", f"{video}/file_index", "data/chunk_index", "data/file_index", "tasks", "length",
            "meta/episodes/chunk_index", f"stats/{ACTION}/q99"} <= entries[0].keys()  # fmt: skip
    assert parquet.read_table(lerobot / "meta/tasks.parquet").column_names == ["task_index", "task"]


def test_lerobot_statistics_are_those_of_the_columns(lerobot, log):
    stats = json.loads((lerobot / "meta/stats.json").read_text())
    rows = np.concatenate([log.read(i, 0, log.lengths[i], [ACTION])[ACTION] for i in range(3)]).astype(np.float64)
    found = {name: np.array(stats[ACTION][name]) for name in ("min", "max", "mean", "std", "count", "q01", "q50")}
    assert np.allclose(found["mean"], rows.mean(0)) and np.allclose(found["std"], rows.std(0))
    assert np.allclose(found["min"], rows.min(0)) and found["count"].tolist() == [27]
    pictures = np.concatenate([log.read(i, 0, log.lengths[i], [IMAGES + "left"])[IMAGES + "left"] for i in range(3)])
    seen = stats[IMAGES + "left"]
    assert np.shape(seen["mean"]) == (3, 1, 1)
    assert np.allclose(np.ravel(seen["mean"]), (pictures / 255).mean((0, 1, 2)))
    assert np.allclose(np.ravel(seen["std"]), (pictures / 255).std((0, 1, 2)))


def test_films_lose_little_and_keep_their_order(lerobot, log):
    name = IMAGES + "left"
    got, wanted = open_log(lerobot).read(2, 1, 9, [name])[name], log.read(2, 1, 9, [name])[name]
    gap = np.abs(got.astype(int) - wanted.astype(int)).mean((1, 2, 3))
    other = np.abs(got[:1].astype(int) - wanted.astype(int)).mean((1, 2, 3))
    assert (gap < 6).all()  # a hard-edged square of 4 px is the worst that halved colours can meet
    assert gap[0] < other[1:].max()


def test_many_films_and_tables_make_one_log(log, tmp_path, monkeypatch):
    pytest.importorskip("av")
    pytest.importorskip("pyarrow")
    from jepa_mpc.trajectories.formats import lerobot_writer

    monkeypatch.setattr(lerobot_writer, "VIDEO_MB", 0)
    monkeypatch.setattr(lerobot_writer, "DATA_MB", 0)
    folder = lerobot_writer.write_lerobot(log, tmp_path / "many", frames="h264_lossless")
    assert len(list(folder.rglob("*.mp4"))) == 6 and len(list((folder / "data").rglob("*.parquet"))) == 3
    read = open_log(folder)
    for index in range(3):
        got, wanted = (x.read(index, 0, log.lengths[index], [STATE, IMAGES + "right"]) for x in (read, log))
        assert all(np.array_equal(got[name], wanted[name]) for name in wanted)


def test_an_unsteady_rate_is_no_lerobot_log(log, tmp_path):
    pytest.importorskip("pyarrow")
    from jepa_mpc.trajectories.formats.lerobot_writer import write_lerobot

    with pytest.raises(ValueError, match="whole frames per second"):
        write_lerobot(MappedLog(log, robot=RobotMap(hz=2.5)), tmp_path / "log")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key, value", [
    ("data_path", "../../secret-{chunk_index}.parquet"), ("video_path", "{video_key.__class__}"),
    ("data_path", "{chunk_index:999999999d}"), ("codebase_version", "v9.0"), ("fps", "fast"),
])  # fmt: skip
def test_a_header_that_leads_astray_is_refused(log, tmp_path, key, value):
    pytest.importorskip("pyarrow")
    pytest.importorskip("av")
    from jepa_mpc.trajectories.formats.lerobot_writer import write_lerobot

    folder = write_lerobot(log, tmp_path / "log", frames="h264")
    (folder / "checksums.json").unlink()
    info = json.loads((folder / "meta/info.json").read_text())
    (folder / "meta/info.json").write_text(json.dumps({**info, key: value}))
    with pytest.raises(BadEpisode, match=key):
        open_log(folder).read(0, 0, 2, [ACTION, IMAGES + "left"])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_minari_writes_is_read(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    from gymnasium import spaces
    from minari.data_collector import EpisodeBuffer

    draws = np.random.default_rng(0)
    wanted = [draws.normal(size=(length + 1, 5)) for length in (4, 6)]
    frames = [draws.integers(0, 256, size=(len(rows), 8, 8, 3), dtype=np.uint8) for rows in wanted]
    buffers = [
        EpisodeBuffer(
            id=i, observations={"state": rows, "image": frames[i]}, actions=rows[:-1, :2],
            rewards=[0.0] * (len(rows) - 1), terminations=[False] * (len(rows) - 1),
            truncations=[False] * (len(rows) - 2) + [True],
        )
        for i, rows in enumerate(wanted)
    ]  # fmt: skip
    space = spaces.Dict({
        "state": spaces.Box(-np.inf, np.inf, (5,), np.float64), "image": spaces.Box(0, 255, (8, 8, 3), np.uint8),
    })  # fmt: skip
    minari.create_dataset_from_buffers(
        "arm/test-v0", buffers, observation_space=space, action_space=spaces.Box(-9, 9, (2,), np.float64),
        jpeg_encoding=False, data_format="hdf5",
    )  # fmt: skip
    folder = tmp_path / "arm/test-v0"
    read = open_log(folder)
    assert detect(folder) == "minari" and read.lengths == [5, 7] and read.cameras == ("image",)
    got = read.read(1, 0, 7, [STATE, ACTION, IMAGES + "image"])
    assert np.array_equal(got[STATE], wanted[1]) and np.array_equal(got[IMAGES + "image"], frames[1])
    assert np.array_equal(got[ACTION][:-1], wanted[1][:-1, :2]) and not got[ACTION][-1].any()


def test_episodes_end_to_end_are_cut_where_the_file_says(tmp_path):
    import h5py

    rows = np.arange(20, dtype=np.float32)[:, None]
    ends = np.zeros(20, dtype=bool)
    ends[[6, 11]] = True
    with h5py.File(tmp_path / "flat.hdf5", "w") as file:
        file["observations"], file["actions"], file["timeouts"] = rows, rows, ends
    with h5py.File(tmp_path / "offsets.hdf5", "w") as file:
        file["proprio"], file["action"] = rows, rows
        file["ep_len"], file["ep_offset"] = [7, 5, 8], [0, 7, 12]
    for name in ("flat.hdf5", "offsets.hdf5"):
        read = Hdf5Reader(tmp_path / name)
        assert read.lengths == [7, 5, 8], name
        assert read.read(1, 0, 5, [STATE])[STATE].ravel().tolist() == [7, 8, 9, 10, 11]
    with h5py.File(tmp_path / "offsets.hdf5", "r+") as file:
        file["ep_len"][1] = 6
    with pytest.raises(BadEpisode, match="ep_len"):
        Hdf5Reader(tmp_path / "offsets.hdf5")


def test_a_link_out_of_the_file_is_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.zeros((5, 2))
    with h5py.File(tmp_path / "log.h5", "w") as file:
        file["action"] = np.zeros((5, 2))
        file["state"] = h5py.ExternalLink("other.h5", "secret")
    with pytest.raises(BadEpisode, match="link"):
        open_log(tmp_path / "log.h5")


def test_a_package_that_is_not_installed_is_named(log, tmp_path, monkeypatch):
    import sys

    for name in ("av", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    from jepa_mpc.trajectories.formats.tables import Table
    from jepa_mpc.trajectories.formats.videos import VideoFile

    (tmp_path / "film.mp4").write_bytes(b"\x00\x00\x00\x08free")
    with pytest.raises(MissingPackage, match="pip install av"):
        VideoFile(tmp_path / "film.mp4")
    with pytest.raises(MissingPackage, match="pip install pyarrow"):
        Table(tmp_path / "table.parquet")


def minari_folder(place, observations, *, steps=(4, 6), extra=0):
    """A dataset by hand; `observations(length)` gives the members of one episode's observations."""
    import h5py

    (place / "data").mkdir(parents=True)
    with h5py.File(place / "data/main_data.hdf5", "w") as file:
        for index, count in enumerate(steps):
            group = file.create_group(f"episode_{index}")
            for name, rows in observations(count + 1 - (extra if index == 1 else 0)).items():
                group[f"observations/{name}"] = rows
            group["actions/_index_0"], group["actions/_index_1"] = np.ones((count, 2)), np.full((count, 1), 2.0)
    header = {"total_episodes": len(steps), "total_steps": sum(steps), "data_format": "hdf5"}
    (place / "data/metadata.json").write_text(json.dumps(header))
    return place


def test_tuples_of_minari_are_numbered(tmp_path):
    def observations(length):
        rows = np.arange(2.0 * length).reshape(length, 2)
        return {"_index_0": rows, "_index_1/speed": rows[:, :1], "_index_1/_index_0": rows + 1}

    log = open_log(minari_folder(tmp_path / "log", observations))
    assert list(log.fields) == [
        "observation.0", "observation.1.0", "observation.1.speed", "action.0", "action.1",
    ]  # fmt: skip
    robot = RobotMap(state=("observation.0", "observation.1.speed"), action=("action.0", "action.1"), hz=10)
    got = MappedLog(log, robot=robot).read(1, 0, 7, [STATE, ACTION])
    assert got[STATE][2].tolist() == [4, 5, 4] and got[ACTION][:2].tolist() == [[1, 1, 2]] * 2
    assert not got[ACTION][-1].any()


def test_an_episode_of_minari_that_is_too_short_is_left_out(tmp_path):
    log = open_log(minari_folder(tmp_path / "log", lambda length: {"state": np.ones((length, 2))}, extra=1))
    with pytest.raises(BadEpisode, match=r"one step fewer than the 6 observations.*leave_out=\[1\]"):
        log.read(1, 0, 2, [STATE])
    assert log.read(0, 0, 5, [STATE])[STATE].shape == (5, 2)
