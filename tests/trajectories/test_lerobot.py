"""LeRobot logs as others write them: tasks, depth, unusual dtypes, rows in other tables than the log says."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("pyarrow")

from jepa_mpc.errors import BadEpisode
from jepa_mpc.trajectories.episode import ACTION, DEPTH, IMAGES, STATE, TASK_INDEX
from jepa_mpc.trajectories.formats import open_log
from jepa_mpc.trajectories.formats.depth import DepthCodes, decode_depth, depth_codes
from jepa_mpc.trajectories.formats.lerobot_writer import write_lerobot
from jepa_mpc.trajectories.formats.npz import NpzStore
from jepa_mpc.trajectories.formats.tables import Table, write_table
from jepa_mpc.trajectories.inspection import inspect_log
from jepa_mpc.trajectories.robots import MappedLog
from jepa_mpc.trajectories.synthetic import synthetic_log
from tests.trajectories.memory_log import AXES, SIDE, MemoryLog

TOP, TOP_DEPTH = IMAGES + "top", DEPTH + "top"
STEPS = [["open"] * 6, ["open"] * 4 + ["close"] * 3, ["close"] * 5]
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
DATA = "data/chunk-000/file-000.parquet"


@pytest.fixture
def written(tmp_path):
    """A log with PNG and TIFF pictures and no checksums: tests change it."""
    folder = write_lerobot(MemoryLog(STEPS), tmp_path / "log", frames="image")
    (folder / "checksums.json").unlink()
    return folder


def change_table(path, change):
    """Rewrite a table; `change` alters its columns by name."""
    table = Table(path)
    columns = {name: table.values(name) for name in table.columns if not name.startswith("stats/")}
    columns = {name: np.array(v) if isinstance(v[0], float) else v for name, v in columns.items()}
    change(columns)
    write_table(path, columns)


def change_info(folder, change):
    info = json.loads((folder / "meta/info.json").read_text())
    change(info)
    (folder / "meta/info.json").write_text(json.dumps(info))


def tasks(log):
    return [log.metadata(index)["tasks"] for index in range(len(log))]


def test_tasks_are_a_table_whose_index_is_the_text(written):
    from pyarrow import parquet

    table = parquet.read_table(written / "meta/tasks.parquet")
    told = json.loads(table.schema.metadata[b"pandas"])
    assert table.to_pydict() == {"task_index": [0, 1], "task": ["open", "close"]}
    assert told["index_columns"] == ["task"]
    assert {entry["name"]: entry["pandas_type"] for entry in told["columns"]} == {
        "task_index": "int64", "task": "unicode",
    }  # fmt: skip


def test_tasks_within_an_episode_are_told_in_their_order(written):
    log = open_log(written)
    assert tasks(log) == [["open"], ["open", "close"], ["close"]]
    numbers = [log.read(i, 0, log.lengths[i], [TASK_INDEX])[TASK_INDEX].tolist() for i in range(3)]
    assert numbers == [[0] * 6, [0] * 4 + [1] * 3, [1] * 5]


def test_tasks_are_looked_up_where_episodes_name_none(written):
    change_table(written / EPISODES, lambda columns: columns.pop("tasks"))
    assert tasks(open_log(written)) == [["open"], ["open", "close"], ["close"]]
    (written / "meta/tasks.parquet").unlink()
    assert tasks(open_log(written)) == [[], [], []]


def test_tasks_go_with_their_steps_through_a_second_writing(written, tmp_path):
    change_table(written / EPISODES, lambda columns: columns.pop("tasks"))
    again = open_log(write_lerobot(MappedLog(open_log(written)), tmp_path / "again", frames="image"))
    assert tasks(again) == [["open"], ["open", "close"], ["close"]]
    assert again.read(1, 0, 7, [TASK_INDEX])[TASK_INDEX].tolist() == [0] * 4 + [1] * 3


def test_several_tasks_without_numbers_are_refused(tmp_path):
    log = MemoryLog(STEPS)
    log.metadata = lambda index: {"tasks": ["a", "b", "c"]}
    with pytest.raises(BadEpisode, match="task_index"):
        write_lerobot(log, tmp_path / "log", frames="image")
    assert not list(tmp_path.iterdir())


def test_tasks_of_version_2_1_are_looked_up_too(tmp_path):
    from jepa_mpc.trajectories.formats.layouts import lerobot_v21

    folder = lerobot_v21(NpzStore(synthetic_log(tmp_path / "npz", episodes=2)), tmp_path / "v21")
    (folder / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "reach the cube"}\n')
    lines = [json.loads(line) for line in (folder / "meta/episodes.jsonl").read_text().splitlines()]
    rows = [json.dumps({name: row[name] for name in row if name != "tasks"}) for row in lines]
    (folder / "meta/episodes.jsonl").write_text("\n".join(rows))
    assert tasks(open_log(folder)) == [["reach the cube"]] * 2


def test_names_dtypes_and_depth_come_back(written):
    log, source = open_log(written), MemoryLog(STEPS)
    assert {name: log.fields[name].names for name in (STATE, ACTION)} == AXES
    for name in (STATE, ACTION, "observation.force", "observation.ticks", TOP, TOP_DEPTH):
        got = log.read(1, 1, 6, [name])[name]
        assert got.dtype == source.episodes[1][name].dtype and np.array_equal(got, source.episodes[1][name][1:6]), name
    info = json.loads((written / "meta/info.json").read_text())
    assert info["features"][IMAGES + "top_depth"]["info"] == {"is_depth_map": True, "depth_unit": "m"}


def test_info_has_the_keys_of_lerobot_and_no_other(written):
    known = {"codebase_version", "fps", "features", "total_episodes", "total_frames", "total_tasks", "chunks_size",
             "data_files_size_in_mb", "video_files_size_in_mb", "data_path", "video_path", "robot_type",
             "splits"}  # fmt: skip
    assert json.loads((written / "meta/info.json").read_text()).keys() == known


def test_depth_films_keep_twelve_bits(tmp_path):
    source = MemoryLog(STEPS, farthest_m=9.5)
    folder = write_lerobot(source, tmp_path / "log", frames="h264")
    log = open_log(folder)
    got, wanted = log.read(1, 2, 7, [TOP_DEPTH])[TOP_DEPTH], source.episodes[1][TOP_DEPTH][2:7]
    assert np.abs(got - wanted).max() < 2.3e-3  # half a step at 10 m is 2.2 mm
    assert not got[wanted == 0].any()
    told = json.loads((folder / "meta/info.json").read_text())["features"][IMAGES + "top_depth"]["info"]
    assert (told["video.pix_fmt"], told["video.codec"], told["is_depth_map"]) == ("gray12le", "hevc", True)


def test_depth_beyond_the_codes_is_refused(tmp_path):
    with pytest.raises(BadEpisode, match="use frames=image"):
        write_lerobot(MemoryLog(STEPS, farthest_m=11.0), tmp_path / "log", frames="h264")


@pytest.mark.parametrize("codes", [DepthCodes(), DepthCodes(low_m=0.2, high_m=2.0, logarithmic=False)])
def test_codes_and_metres_agree(codes):
    metres = np.linspace(codes.low_m, codes.high_m, 1001)[1:]
    assert np.abs(codes.decode(codes.encode(metres)) - metres).max() < (codes.high_m - codes.low_m) / 4000
    assert depth_codes(codes.to_info()) == codes


@pytest.mark.parametrize("info", [{"video.depth_max": 0.0}, {"video.shift": -1.0}, {"video.depth_min": "near"}])
def test_codes_that_are_no_range_are_refused(info):
    with pytest.raises(ValueError, match="depth codes need"):
        depth_codes(info)


def test_millimetres_and_unmeasured_pixels():
    import io

    from PIL import Image

    def tiff(values):
        file = io.BytesIO()
        Image.fromarray(values).save(file, format="TIFF")
        return file.getvalue()

    whole = decode_depth(tiff(np.array([[0, 1500]], np.uint16)), (1, 2), unit=None)
    assert whole.dtype == np.float32 and whole.tolist() == [[0.0, 1.5]]
    assert decode_depth(tiff(np.array([[np.nan, 2.5]], np.float32)), (1, 2), unit="m").tolist() == [[0.0, 2.5]]
    with pytest.raises(BadEpisode, match="declared"):
        decode_depth(tiff(np.zeros((2, 2), np.uint16)), (1, 2), unit=None)


def as_film(info):
    depth = {"is_depth_map": True, "depth_unit": "mm"}
    info["features"][IMAGES + "far"] = {"dtype": "video", "shape": [SIDE, SIDE, 1], "names": None, "info": depth}


def as_picture(info):
    depth = {"is_depth_map": True}
    info["features"][IMAGES + "far"] = {"dtype": "image", "shape": [1, SIDE, SIDE], "names": None, "info": depth}


def as_grey(info):
    info["features"][IMAGES + "far"] = {"dtype": "image", "shape": [SIDE, SIDE, 1], "names": None}


def as_far_unit(info):
    info["features"][IMAGES + "top_depth"]["info"]["depth_unit"] = "inch"


def as_complex(info):
    info["features"]["observation.far"] = {"dtype": "complex64", "shape": [2], "names": None}


@pytest.mark.parametrize(
    "change, word",
    [
        (as_film, "far"),
        (as_picture, "far"),
        (as_grey, "not marked as depth"),
        (as_far_unit, "inch"),
        (as_complex, "complex64"),
    ],
)
def test_what_cannot_be_read_is_left_out_with_a_remark(written, change, word):
    change_info(written, change)
    log = open_log(written)
    assert log.cameras == ("top",) and len(log.remarks) == 1 and word in log.remarks[0] and "left out" in log.remarks[0]
    report = inspect_log(MappedLog(log), frames="all")
    assert not report.damaged and log.remarks[0] in report.remarks


def test_a_damaged_depth_film_does_not_hold_up_the_colours(tmp_path):
    folder = write_lerobot(MemoryLog(STEPS), tmp_path / "log", frames="h264")
    film = next((folder / "videos" / (IMAGES + "top_depth")).rglob("*.mp4"))
    film.write_bytes(film.read_bytes()[:500])
    log = open_log(folder)
    assert log.cameras == ("top",) and TOP_DEPTH not in log.fields and "top_depth" in log.remarks[0]
    assert log.read(0, 0, 6, [TOP])[TOP].shape == (6, SIDE, SIDE, 3)


def test_rows_are_found_in_another_table(written):
    table = Table(written / DATA)
    columns = {name: table.values(name) for name in table.columns if "images" not in name}
    change_info(written, lambda info: [info["features"].pop(n) for n in (TOP, IMAGES + "top_depth")])
    split = sum(MemoryLog(STEPS).lengths[:1])
    kinds = {name: np.dtype(log_dtype(name)) for name in columns}
    for file, rows in (("file-000", slice(split)), ("file-001", slice(split, None))):
        part = {name: np.array(values[rows], kinds[name]) for name, values in columns.items()}
        write_table(written / f"data/chunk-000/{file}.parquet", part)
    log, source = open_log(written), MemoryLog(STEPS)
    for index in range(3):
        got = log.read(index, 0, log.lengths[index], [STATE])[STATE]
        assert np.array_equal(got, source.episodes[index][STATE])
    assert "the rows of 2 episodes (1, 2) lie in other tables" in log.remarks[-1]
    (written / "data/chunk-000/file-001.parquet").unlink()
    with pytest.raises(BadEpisode, match="occurs in 0 rows"):
        open_log(written).read(1, 0, 2, [STATE])


def log_dtype(name):
    episode = MemoryLog(STEPS).episodes[0]
    return {"timestamp": "float32", "index": "int64"}.get(name) or episode[name].dtype


def test_episodes_that_lerobot_added_have_no_origin(written):
    origin = json.loads((written / "meta/origin.json").read_text())
    origin["episodes"] = [{"lab_index": 3, "tasks": ["stale"]}]
    (written / "meta/origin.json").write_text(json.dumps(origin))
    log = open_log(written)
    assert log.metadata(0) == {"robot_type": "toy", "lab_index": 3, "tasks": ["open"]}
    assert log.metadata(2) == {"robot_type": "toy", "tasks": ["close"]}
