"""Every log format: what is written comes back, and what is damaged is refused with file and field."""

from __future__ import annotations

import importlib.util
import io
import json
import struct
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from jepa_mpc.errors import BadEpisode, UnknownName
from jepa_mpc.trajectories.episode import ACTION, EE_POSE, EPISODE_INDEX, GRIPPER, IMAGES, STATE, TIMESTAMP, Episode
from jepa_mpc.trajectories.formats import FORMATS, WRITERS, detect, open_log
from jepa_mpc.trajectories.formats.layouts import LAYOUTS
from jepa_mpc.trajectories.formats.npz import MANIFEST, METADATA, NpzStore, episode_path, read_episode, write_episode
from jepa_mpc.trajectories.recording import write_manifest
from jepa_mpc.trajectories.robots import MappedLog, guess_robot
from jepa_mpc.trajectories.synthetic import synthetic_episode, synthetic_log
from jepa_mpc.trajectories.windows import Windows

DRAWS = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    return synthetic_log(tmp_path / "log", episodes=3)


def rewrite(path, contents, compress=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)


def npy(array, *, descr=None, shape=None, allow_pickle=False):
    """A .npy file, with a header that may lie."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=allow_pickle)
    if descr is None and shape is None:
        return file.getvalue()
    header = repr({"descr": descr or array.dtype.str, "fortran_order": False, "shape": shape or array.shape}) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + array.tobytes()


WRITTEN = {**{name: write for name, write in WRITERS.items() if name != "npz"}, **LAYOUTS}  # a layout rules


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """The same three episodes in every layout, by name."""
    place = tmp_path_factory.mktemp("logs")
    made = {"npz": synthetic_log(place / "npz", episodes=3)}
    for name, write in WRITTEN.items():
        for package in PACKAGES.get(name, ()):
            if importlib.util.find_spec(package) is None:
                break
        else:
            made[name] = write(NpzStore(made["npz"]), place / name)
    return made


FILMED = ("av", "pyarrow")
PACKAGES = {"lerobot": FILMED, "lerobot_v21": FILMED, "droid": ("av",), "films": FILMED, "mcap": ("mcap", "mcap_ros2")}
EVERY = ["npz", *WRITTEN]
ROWS = [STATE, EE_POSE, GRIPPER, IMAGES + "left", IMAGES + "right"]
SAME_NAMES = ["npz", "lerobot", "lerobot_v21", "robomimic"]  # the others have no place for some of our columns


def opened(logs, name):
    if name not in logs:
        pytest.skip(f"{name} needs {' and '.join(PACKAGES[name])}")
    hz = 4.0 if name in ("minari", "ogbench") else None  # they know no rate
    reader = open_log(logs[name])
    return MappedLog(reader, robot=replace(guess_robot(reader), hz=hz) if hz else None)


def test_every_format_has_a_layout_to_test():
    alone = {"clips", "pictures", "clouds", "sounds"}  # no columns: trajectories/test_clips.py and test_folders.py
    assert set(FORMATS) - alone <= set(EVERY) and set(WRITERS) <= set(FORMATS)


@pytest.mark.parametrize("name", EVERY)
def test_a_layout_is_recognised(name, logs):
    opened(logs, name)
    assert detect(logs[name]) == name.removesuffix("_v21")


@pytest.mark.parametrize("name", EVERY)
def test_what_is_written_is_read_back(name, logs):
    store = opened(logs, name)
    assert list(store.lengths) == [8, 9, 10] and store.cameras == ("left", "right")
    for index in range(3):
        wanted = synthetic_episode(index, length=8 + index).arrays
        names = list(store.fields) if name in SAME_NAMES else ROWS
        got = store.read(index, 0, 8 + index, names)
        assert all(np.array_equal(got[k], wanted[k]) and got[k].dtype == wanted[k].dtype for k in ROWS)
        assert name not in SAME_NAMES or all(np.array_equal(got[k], wanted[k]) for k in wanted)


@pytest.mark.parametrize("name", EVERY)
def test_actions_lead_from_their_observation_to_the_next(name, logs):
    columns = opened(logs, name).read(2, 3, 8, [ACTION, EE_POSE])
    assert columns[ACTION].shape == (5, 7)
    assert np.allclose(np.diff(columns[EE_POSE][:, :3], axis=0), columns[ACTION][:-1, :3], atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_a_part_of_an_episode_is_that_part(name, logs):
    store = opened(logs, name)
    whole, part = store.read(1, 0, 9, list(store.fields)), store.read(1, 3, 6, list(store.fields))
    assert all(np.array_equal(part[key], whole[key][3:6]) for key in whole)


@pytest.mark.parametrize("name", EVERY)
def test_fields_tell_shape_and_dtype(name, logs):
    store = opened(logs, name)
    for key, column in store.read(0, 0, 2, list(store.fields)).items():
        assert (column.shape[1:], str(column.dtype)) == (store.fields[key].shape, store.fields[key].dtype)
        assert store.fields[key].hz == pytest.approx(1 / store.dt_s)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("start, stop", [(-1, 3), (2, 2), (0, 99)])
def test_a_range_outside_of_the_episode_is_refused(name, logs, start, stop):
    with pytest.raises(IndexError, match="episode 0 of 8"):
        opened(logs, name).read(0, start, stop, [STATE])


@pytest.mark.parametrize("name", EVERY)
def test_sources_are_the_files_of_an_episode(name, logs):
    store = opened(logs, name)
    assert all(path.is_file() for index in range(3) for path in store.sources(index))


@pytest.mark.parametrize("name", EVERY)
def test_windows_of_every_format_are_the_same_bits(name, logs):
    wanted, got = Windows(NpzStore(logs["npz"])), Windows(opened(logs, name))
    assert len(wanted) == len(got)
    for index in (0, 7, len(got) - 1):
        assert all(torch.equal(wanted[index][key], got[index][key]) for key in ("frames", "proprio", "actions"))


@pytest.mark.parametrize("target", WRITERS)
@pytest.mark.parametrize("name", EVERY)
def test_every_format_converts_to_every_writable_one_and_back(name, target, logs, tmp_path):
    source = opened(logs, name)
    options = {"frames": "image"} if target == "lerobot" else {}
    there = MappedLog(open_log(WRITERS[target](source, tmp_path / f"{target}.hdf5", **options)))
    back = open_log(WRITERS["npz"](there, tmp_path / "back"))
    wanted = source.read(1, 0, 9, [*ROWS, ACTION, TIMESTAMP])
    got = back.read(1, 0, 9, [*ROWS, ACTION, TIMESTAMP])
    assert all(np.array_equal(wanted[key], got[key]) for key in (*ROWS, ACTION))
    assert np.allclose(wanted[TIMESTAMP], got[TIMESTAMP], atol=1e-6)


def test_a_format_that_is_not_known_lists_the_known_ones(tmp_path):
    with pytest.raises(UnknownName, match="droid, films"):
        open_log(tmp_path, format="rlds")
    with pytest.raises(BadEpisode, match="none that is known"):
        open_log(tmp_path)
    with pytest.raises(BadEpisode, match="does not exist"):
        open_log(tmp_path / "nowhere")


def test_metadata_comes_back(folder):
    metadata = NpzStore(folder).metadata(2)
    assert metadata["cameras"] == ["left", "right"] and metadata["lab_index"] == 1


def test_an_unwritten_file_leaves_nothing_behind(tmp_path):
    bad = Episode(arrays={**synthetic_episode(0).arrays, ACTION: np.full((8, 7), np.nan, np.float32)}, metadata={})
    with pytest.raises(BadEpisode, match="'action' is not finite"):
        write_episode(episode_path(tmp_path, 0), bad)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(folder, share):
    path = episode_path(folder, 1)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BadEpisode, match="episode_000001.npz"):
        read_episode(path)


def test_flipped_bits_are_refused_or_change_nothing(folder):
    path = episode_path(folder, 0)
    sound, wanted = path.read_bytes(), synthetic_episode(0)
    refused = 0
    for _ in range(300):
        data = bytearray(sound)
        place = int(DRAWS.integers(len(data)))
        data[place] ^= 1 << int(DRAWS.integers(8))
        path.write_bytes(data)
        try:
            got = read_episode(path)
        except BadEpisode:
            refused += 1
            continue
        assert all(np.array_equal(got.arrays[key], wanted.arrays[key]) for key in wanted.arrays)
    assert refused > 240  # the rest lies in parts of the zip directory that say nothing (times, attributes)


def mutated(**changes):
    return {**members_of_sound(), **{name + ".npy": npy(array) for name, array in changes.items()}}


def members_of_sound():
    episode = synthetic_episode(0)
    metadata = json.dumps({"format_version": 1, **episode.metadata}).encode()
    return {METADATA: metadata, **{name + ".npy": npy(array) for name, array in episode.arrays.items()}}


SOUND = synthetic_episode(0).arrays
LEFT = IMAGES + "left"


def poisoned(name, value):
    array = SOUND[name].copy()
    array.reshape(-1)[len(array) // 2] = value
    return {name: array}


FAULTS = {
    "nan action": poisoned(ACTION, np.nan),
    "infinite state": poisoned(STATE, np.inf),
    "nan time": poisoned(TIMESTAMP, np.nan),
    "time stands": poisoned(TIMESTAMP, 0.0),
    "double action": {ACTION: SOUND[ACTION].astype(np.float64)},
    "float frames": {LEFT: SOUND[LEFT].astype(np.float32)},
    "flat frames": {LEFT: SOUND[LEFT].reshape(8, -1)},
    "grey frames": {LEFT: SOUND[LEFT][..., :1]},
    "cameras differ": {LEFT: SOUND[LEFT][:, :8]},
    "short action": {ACTION: SOUND[ACTION][:-1]},
    "no steps": {name: array[:0] for name, array in SOUND.items()},
    "mixed index": poisoned(EPISODE_INDEX, 7),
    "frames miscounted": poisoned("frame_index", 0),
    "stray field": {"secret": SOUND[ACTION]},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_field_is_named(tmp_path, fault):
    path = tmp_path / "episode_000000.npz"
    rewrite(path, mutated(**FAULTS[fault]))
    with pytest.raises(BadEpisode, match=r"episode_000000.npz: field '"):
        read_episode(path)


@pytest.mark.parametrize("name", list(SOUND))
def test_a_missing_field_is_named(tmp_path, name):
    path = tmp_path / "episode_000000.npz"
    contents = members_of_sound()
    del contents[name + ".npy"]
    rewrite(path, contents)
    with pytest.raises(BadEpisode, match=name):
        read_episode(path)


LIES = {
    "huge shape": npy(SOUND[ACTION], shape=(2**60, 7)),
    "overflowing shape": npy(SOUND[ACTION], shape=(2**62, 2**62)),
    "negative shape": npy(SOUND[ACTION], shape=(-1, 7)),
    "boolean shape": npy(SOUND[ACTION], shape=(True, 56)),
    "object array": npy(np.array([{}], dtype=object), allow_pickle=True),
    "object header": npy(SOUND[ACTION], descr="|O"),
    "big endian": npy(SOUND[ACTION], descr=">f4"),
    "code in header": b"\x93NUMPY\x01\x00" + struct.pack("<H", 30) + b"__import__('os').abort()      \n",
    "no header": b"hello",
    "nested header": b"\x93NUMPY\x01\x00" + struct.pack("<H", 4000) + b"(" * 4000,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_header_is_refused_at_once(tmp_path, lie):
    path = tmp_path / "episode_000000.npz"
    rewrite(path, {**members_of_sound(), ACTION + ".npy": LIES[lie]})
    begun = time.monotonic()
    with pytest.raises(BadEpisode, match="'action'"):
        read_episode(path)
    assert time.monotonic() - begun < 1.0


@pytest.mark.parametrize("offset", [20, 24])  # compressed and plain size in the central directory
def test_a_lying_directory_is_refused(folder, offset):
    path = episode_path(folder, 0)
    data = bytearray(path.read_bytes())
    entry = data.rfind(b"PK\x01\x02")
    data[entry + offset : entry + offset + 4] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(data)
    with pytest.raises(BadEpisode, match="episode_000000.npz"):
        read_episode(path)


def test_a_zip_bomb_is_refused(tmp_path):
    path = tmp_path / "episode_000000.npz"
    rewrite(path, {**members_of_sound(), ACTION + ".npy": bytes(2**24)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(BadEpisode, match="uncompressed"):
        read_episode(path)


def test_metadata_that_is_not_json_is_refused(tmp_path):
    path = tmp_path / "episode_000000.npz"
    for text in (b"{", b"[]", b'{"format_version": 99}', b"[" * 100_000):
        rewrite(path, {**members_of_sound(), METADATA: text})
        with pytest.raises(BadEpisode, match=METADATA):
            read_episode(path)


def test_a_gap_in_the_numbers_is_refused(folder):
    episode_path(folder, 1).unlink()
    with pytest.raises(BadEpisode, match="episode_000001.npz"):
        NpzStore(folder)


def test_a_renamed_episode_is_refused(folder):
    episode_path(folder, 2).replace(episode_path(folder, 0))
    write_episode(episode_path(folder, 2), synthetic_episode(2))
    with pytest.raises(BadEpisode, match="moved or renamed"):
        NpzStore(folder)


def test_a_manifest_that_counts_otherwise_is_refused(folder):
    write_manifest(folder, dict(enumerate([8, 9, 10])), {})
    NpzStore(folder)
    episode_path(folder, 2).unlink()
    with pytest.raises(BadEpisode, match=MANIFEST):
        NpzStore(folder)


def test_an_episode_of_another_size_is_refused(folder):
    write_episode(episode_path(folder, 2), synthetic_episode(2, length=10, image_size=12))
    store = NpzStore(folder)
    with pytest.raises(BadEpisode, match="differs|shape"):
        store.episode(2)
    with pytest.raises(BadEpisode, match="the log has"):
        store.read(2, 0, 4, [LEFT])


def test_an_empty_folder_is_no_log(tmp_path):
    with pytest.raises(BadEpisode, match="no episode"):
        NpzStore(tmp_path)
