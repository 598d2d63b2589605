"""Logs that say two things are refused: rates and times, counts and rows, sums and bytes, names that come twice."""

from __future__ import annotations

import io
import json
import warnings
import zipfile

import h5py
import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("pyarrow")

from jepa_mpc.errors import BadEpisode
from jepa_mpc.trajectories.cache import CacheOptions
from jepa_mpc.trajectories.checksums import NAME
from jepa_mpc.trajectories.episode import TIMESTAMP
from jepa_mpc.trajectories.formats import open_log
from jepa_mpc.trajectories.formats.layouts import LAYOUTS
from jepa_mpc.trajectories.formats.lerobot_writer import write_lerobot
from jepa_mpc.trajectories.formats.npz import MANIFEST, NpzStore, episode_path, read_episode, write_episode
from jepa_mpc.trajectories.formats.npz_writer import write_manifest
from jepa_mpc.trajectories.formats.tables import Table, write_table
from jepa_mpc.trajectories.formats.videos import VideoEncoder
from jepa_mpc.trajectories.ingest import ingest
from jepa_mpc.trajectories.synthetic import synthetic_episode, synthetic_log


@pytest.fixture
def ours(tmp_path):
    return synthetic_log(tmp_path / "npz", episodes=3)


@pytest.fixture
def lerobot(ours, tmp_path):
    path = write_lerobot(NpzStore(ours), tmp_path / "lerobot", frames="image")
    (path / NAME).unlink()
    return path


def refused(path, match, **options):
    with pytest.raises(BadEpisode, match=match):
        ingest(path, options=CacheOptions(**options))


def retimed(path, change):
    table = path / "data/chunk-000/file-000.parquet"
    held = Table(table)
    columns = {n: held.values(n) if "images" in n else held.array(n) for n in held.columns}
    from jepa_mpc.trajectories.formats.tables import image_column

    for name in [name for name in columns if "images" in name]:
        columns[name] = image_column([cell["bytes"] for cell in columns[name]])
    columns[TIMESTAMP] = change(columns[TIMESTAMP]).astype(np.float32)
    write_table(table, columns)


def changed(path, name, **values):
    file = path / name
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1, 2.0, 50.0])
def test_times_that_contradict_the_rate_of_a_lerobot_log_are_refused(lerobot, factor):
    retimed(lerobot, lambda times: times * factor)
    refused(lerobot, rf"field 'timestamp' (jumps by|goes in steps of) {0.25 * factor:.4g}")


@pytest.mark.parametrize("one_group", [False, True])
def test_lengths_that_contradict_the_tables_are_refused_at_open(lerobot, one_group):
    """The rows of each episode are counted where it has a row group of its own, else those of the table."""
    if one_group:
        retimed(lerobot, lambda times: times)
    file = lerobot / "meta/episodes/chunk-000/file-000.parquet"
    held = Table(file)
    columns = {name: held.values(name) for name in held.columns}
    rows = sum(columns["length"]) if one_group else columns["length"][2]
    columns["length"][2], columns["dataset_to_index"][2] = columns["length"][2] + 1, columns["dataset_to_index"][2] + 1
    write_table(file, columns)
    changed(lerobot, "meta/info.json", total_frames=sum(columns["length"]))
    with pytest.raises(BadEpisode, match=f"has {rows} rows of episodes? .*, meta/episodes counts {rows + 1} steps"):
        open_log(lerobot)


@pytest.mark.parametrize("fps", [1e-320, 0, -4, float("nan"), float("inf"), 1e9, True, "4", None])
def test_a_rate_that_is_none_is_refused(lerobot, fps):
    changed(lerobot, "meta/info.json", fps=fps)
    refused(lerobot, "field 'fps' is")


@pytest.mark.parametrize("dt_s", [float("nan"), -0.25, float("inf"), 1e-320, "0.25", True])
def test_a_time_step_that_is_none_is_refused(tmp_path, dt_s):
    episode = synthetic_episode(0)
    write_episode(episode_path(tmp_path, 0), episode)
    path = episode_path(tmp_path, 0)
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents["metadata.json"] = json.dumps(json.loads(contents["metadata.json"]) | {"dt_s": dt_s}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    refused(tmp_path, "field 'dt_s' is")


def test_a_jump_in_time_inside_an_episode_is_refused(ours):
    episode = read_episode(episode_path(ours, 1))
    times = episode.arrays[TIMESTAMP].copy()
    times[5:] += 50
    write_episode(episode_path(ours, 1), type(episode)(arrays={**episode.arrays, TIMESTAMP: times},
                                                       metadata=episode.metadata))  # fmt: skip
    refused(ours, r"episode_000001.npz: episode 1: field 'timestamp' jumps by 50.25 s at step 4")
    assert len(ingest(ours, options=CacheOptions(leave_out=(1,)))) == 2


def test_an_episode_of_another_rate_is_refused(ours):
    episode = read_episode(episode_path(ours, 1))
    write_episode(episode_path(ours, 1), type(episode)(arrays=episode.arrays, metadata={**episode.metadata, "dt_s": 1}))
    refused(ours, "field 'dt_s' is 1")


def test_an_episode_whose_sum_differs_from_the_manifest_is_refused(ours):
    write_manifest(ours, {0: 8, 1: 9, 2: 10}, {})
    other = synthetic_episode(1, length=9)
    arrays = {name: array.copy() for name, array in other.arrays.items()}
    arrays["action"][0, 0] += 1
    write_episode(episode_path(ours, 1), type(other)(arrays=arrays, metadata=other.metadata))
    refused(ours, f"episode_000001.npz: field 'file' is damaged: size or SHA-256 differ from {MANIFEST}")


def test_a_member_that_is_there_twice_is_refused(ours):
    with warnings.catch_warnings(), zipfile.ZipFile(episode_path(ours, 0), "a") as archive:
        warnings.simplefilter("ignore")
        file = io.BytesIO()
        np.save(file, np.zeros((8, 7), np.float32))
        archive.writestr("action.npy", file.getvalue())
    refused(ours, "field 'action' occurs twice")


@pytest.mark.parametrize("ends", [[-1, 20], [5, 5, 20], [0, 20], [7, 30], [7, 5, 20], [2**62, 20], [7, 12], [6.5, 20]])
def test_ends_that_do_not_divide_the_steps_are_refused(tmp_path, ends):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["action"] = file["state"] = np.zeros((20, 2), np.float32)
        file["episode_ends"] = ends
    with pytest.raises(BadEpisode, match="field 'episode_ends'"):
        open_log(tmp_path)


@pytest.mark.parametrize("name, value", [("terminals", 2.0), ("dones", np.nan), ("ep_len", 0.5)])
def test_marks_that_are_no_marks_are_refused(tmp_path, name, value):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["action"] = np.zeros((20, 2), np.float32)
        file[name] = np.full(20, value)
        if name == "ep_len":
            file["ep_offset"] = np.zeros(20)
    with pytest.raises(BadEpisode, match=f"field '{name}|ep_offset"):
        open_log(tmp_path)


@pytest.mark.parametrize("value", ["many", b"27", -1, 2.5, np.nan])
@pytest.mark.parametrize("place", ["total", "num_samples"])
def test_counts_of_robomimic_that_are_others_are_refused(ours, tmp_path, place, value):
    path = LAYOUTS["robomimic"](NpzStore(ours), tmp_path / "demo")
    path.with_name(f"{path.name}.{NAME}").unlink()
    with h5py.File(path, "r+") as file:
        (file["data"] if place == "total" else file["data/demo_0"]).attrs[place] = value
    refused(path, f"@{place}' is")


@pytest.mark.parametrize("rate", [-20, 1e-320])
def test_a_rate_of_hdf5_that_is_none_is_refused(ours, tmp_path, rate):
    path = LAYOUTS["hdf5"](NpzStore(ours), tmp_path / "h5")
    with h5py.File(path / "episode_0.hdf5", "r+") as file:
        file.attrs["fps"] = rate
    log = open_log(path)
    assert "field '@fps' is" in log.damaged[0]


@pytest.mark.parametrize("cell", ["1_000", "١٢", "0x10", "", "1,0"])
def test_a_cell_that_is_no_plain_number_is_refused(ours, tmp_path, cell):
    path = LAYOUTS["films"](NpzStore(ours), tmp_path / "films")
    table = path / "episode_0/table.csv"
    lines = table.read_text().splitlines()
    lines[3] = ",".join([cell, *lines[3].split(",")[1:]])
    table.write_text("\n".join(lines) + "\n")
    refused(path, "table.csv: field 'file'")


@pytest.mark.parametrize("tasks", [7, [7], [None], {"a": 1}])
def test_tasks_that_are_no_texts_are_refused(ours, tmp_path, tasks):
    path = LAYOUTS["lerobot_v21"](NpzStore(ours), tmp_path / "v21")
    lines = [json.dumps(json.loads(line) | {"tasks": tasks}) for line in
             (path / "meta/episodes.jsonl").read_text().splitlines()]  # fmt: skip
    (path / "meta/episodes.jsonl").write_text("\n".join(lines))
    refused(path, "field 'tasks' is")


def test_tasks_of_v3_that_are_numbers_are_refused(lerobot):
    table = lerobot / "meta/episodes/chunk-000/file-000.parquet"
    held = Table(table)
    columns = {name: held.values(name) for name in held.columns if not name.startswith("stats/")}
    write_table(table, columns | {"tasks": [1, 2, 3]})
    refused(lerobot, "field 'tasks' is")


@pytest.mark.parametrize("text", ["[]", '{"episodes": [1, 2, 3]}', '{"episodes": {}}', "7", "{" * 5000])
def test_an_origin_of_another_shape_is_refused(lerobot, text):
    (lerobot / "meta/origin.json").write_text(text)
    refused(lerobot, "origin.json: field")


@pytest.mark.parametrize("text", ["[]", '{"episodes": 7}', '{"episodes": [{}]}', "[" * 100_000, '{"episodes": [7]}'])
def test_a_manifest_of_another_shape_is_refused(ours, text):
    (ours / MANIFEST).write_text(text)
    refused(ours, "manifest.json: field")


def test_names_that_are_there_twice_are_refused(ours, lerobot, tmp_path):
    import pyarrow
    from pyarrow import parquet

    info = lerobot / "meta/info.json"
    info.write_text('{"fps": 9, ' + info.read_text().lstrip().removeprefix("{"))
    refused(lerobot, "a key occurs twice")
    path = LAYOUTS["films"](NpzStore(ours), tmp_path / "films")
    column = pyarrow.array(np.zeros(9))
    parquet.write_table(
        pyarrow.Table.from_arrays([column, column], ["speed", "speed"]), path / "episode_1/table.parquet"
    )
    refused(path, "two columns of one name")


def test_windows_of_a_log_with_a_damaged_episode_say_so(ours):
    from jepa_mpc.trajectories.windows import Windows

    path = episode_path(ours, 1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadEpisode, match=r"episode_000001.npz.*leave_out=\[1\]"):
        Windows(NpzStore(ours))
    assert len(Windows(NpzStore(ours), episodes=[0, 2]))


MANIFESTS = {
    "a length of a half": {"length": 8.5}, "a length in words": {"length": "8"},
    "a length without end": {"length": 10**400}, "another file": {"file": "episode_000001.npz"},
    "a file outside": {"file": "../a.npz"}, "no sum": {"sha256": None}, "a sum in capitals": {"sha256": "A" * 64},
}  # fmt: skip


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_contradicts_its_files_is_refused(ours, name):
    lengths = NpzStore(ours).lengths
    write_manifest(ours, dict(enumerate(lengths)), {})
    noted = json.loads((ours / MANIFEST).read_text())
    noted["episodes"][0] |= MANIFESTS[name]
    if MANIFESTS[name] == {"sha256": None}:
        noted["episodes"][0].pop("sha256")
    changed(ours, MANIFEST, episodes=noted["episodes"])
    with pytest.raises(BadEpisode, match=MANIFEST) as told:
        NpzStore(ours).read(0, 0, lengths[0], ["action"])
    assert len(str(told.value)) < 400


def test_a_manifest_of_a_later_format_is_refused(ours):
    write_manifest(ours, dict(enumerate(NpzStore(ours).lengths)), {})
    changed(ours, MANIFEST, format_version=99)
    with pytest.raises(BadEpisode, match="format_version is 99, this program reads 1"):
        NpzStore(ours)


TABLES = {
    "a mark of a third": ("done,speed", "0.3,1", "field 'done' holds other numbers; expected 0 or 1"),
    "a counter of a half": ("frame_index,speed", "0.5,1", "field 'frame_index' holds other numbers; expected whole"),
    "a counter without end": ("frame_index,speed", "1e300,1", "field 'frame_index' holds other numbers"),
    "two columns of times": ("time,t", "0,1", "field 'timestamp' stands in two columns"),
    "an axis twice": ("speed_0,speed.0", "0,1", "field 'speed' stands in two columns"),
    "a number and a vector": ("actions_0,action", "0,1", "field 'action' stands in two columns"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_says_one_thing_twice_or_by_halves_is_refused(tmp_path, name):
    header, row, said = TABLES[name]
    (tmp_path / "a.csv").write_text("\n".join([header, *[row] * 4]) + "\n")
    with VideoEncoder(tmp_path / "a.mp4", fps=10, codec="h264_lossless") as film:
        film.write(np.zeros((4, 16, 16, 3), np.uint8))
    with pytest.raises(BadEpisode, match=said):
        open_log(tmp_path)


def test_the_mark_at_the_beginning_of_a_table_of_a_spreadsheet_is_no_part_of_a_name(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftime,speed\n0,1\n.2,2\n.4,3\n")
    with VideoEncoder(tmp_path / "a.mp4", fps=5, codec="h264_lossless") as film:
        film.write(np.zeros((3, 16, 16, 3), np.uint8))
    log = open_log(tmp_path)
    assert TIMESTAMP in log.fields and log.dt_s == pytest.approx(0.2)


def test_two_datasets_of_one_meaning_are_both_kept(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["actions"] = np.zeros((5, 2))
        file["qpos"], file["state"] = np.full((5, 2), 1.0), np.full((5, 2), 2.0)
    log = open_log(tmp_path)
    read = log.read(0, 0, 5, list(log.fields))
    assert (read["observation.state"] == 2).all() and (read["qpos"] == 1).all()


HEADERS = {
    "a length in words": {"trajectory_length": "9"}, "a length of a half": {"trajectory_length": 8.5},
    "a film in numbers": {"left_mp4_path": 5}, "a film with a zero byte": {"left_mp4_path": "a\0b"},
    "a film without a name": {"left_mp4_path": "/"}, "an endless name": {"left_mp4_path": "a" * 400 + ".mp4"},
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_of_droid_with_wrong_types_is_refused(ours, tmp_path, name):
    path = LAYOUTS["droid"](NpzStore(ours), tmp_path / "droid")
    header = next(path.rglob("metadata_*.json"))
    header.write_text(json.dumps(json.loads(header.read_text()) | HEADERS[name]))
    assert list(open_log(path).damaged) == [0]


@pytest.mark.parametrize("row", [{"task_index": float("inf")}, {"task_index": 0.5}, {"task": ["a"]}])
def test_tasks_of_v21_with_wrong_types_are_refused(ours, tmp_path, row):
    path = LAYOUTS["lerobot_v21"](NpzStore(ours), tmp_path / "v21")
    (path / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "a"} | row) + "\n")
    with pytest.raises(BadEpisode, match="tasks.jsonl: field 'file' is unreadable"):
        open_log(path)


@pytest.mark.parametrize("value", [10**400, float("nan"), "far"])
def test_a_depth_without_end_does_not_block_the_colours(lerobot, value):
    info = json.loads((lerobot / "meta/info.json").read_text())
    camera = next(name for name in info["features"] if "images" in name)
    info["features"][camera] |= {"shape": [16, 16, 1], "info": {"is_depth_map": True, "video.depth_max": value}}
    changed(lerobot, "meta/info.json", features=info["features"])
    log = open_log(lerobot)
    assert len(log.cameras) == 1 and any("depth codes need" in said for said in log.remarks)


@pytest.mark.parametrize("lab", [float("inf"), 10**400, "here", 2.5])
def test_a_lab_that_is_no_number_makes_a_group_of_its_own(lerobot, lab):
    changed(lerobot, "meta/origin.json", episodes=[{"lab_index": lab}] * 3)
    assert list(ingest(lerobot, place=lerobot.parent / "cache").groups) == [0, 1, 2]
