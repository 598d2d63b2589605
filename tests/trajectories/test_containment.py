"""No log leads its reader out of its folder, and nothing but plain files, known containers and hard links is opened."""

from __future__ import annotations

import json
import os
import shutil
import signal

import h5py
import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("pyarrow")

from jepa_mpc.errors import BadEpisode
from jepa_mpc.trajectories.formats import open_log
from jepa_mpc.trajectories.formats.layouts import LAYOUTS
from jepa_mpc.trajectories.formats.lerobot_writer import write_lerobot
from jepa_mpc.trajectories.formats.npz import NpzStore
from jepa_mpc.trajectories.formats.tables import Table, write_table
from jepa_mpc.trajectories.formats.videos import VideoFile
from jepa_mpc.trajectories.synthetic import synthetic_log

TIME_S = 20


@pytest.fixture(autouse=True)
def limit():
    """A reader that waits for a pipe would wait for ever."""
    signal.alarm(TIME_S)
    yield
    signal.alarm(0)


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    place = tmp_path_factory.mktemp("sound")
    ours = NpzStore(synthetic_log(place / "npz", episodes=2))
    made = {name: LAYOUTS[name](ours, place / name) for name in ("lerobot", "lerobot_v21", "droid", "films", "hdf5")}
    return made | {"npz": ours.path, "pictures": write_lerobot(ours, place / "pictures", frames="image")}


@pytest.fixture
def copy(logs, tmp_path):
    def make(name):
        place = tmp_path / name
        if not place.exists():
            shutil.copytree(logs[name], place)
            (place / "checksums.json").unlink(missing_ok=True)
        return place

    return make


def refused(path, match):
    """All episodes of a log are refused, when it is opened or when they are read."""
    with pytest.raises(BadEpisode, match=match):
        read_all(path)


def read_all(path):
    log = open_log(path)
    for index in range(len(log.lengths)):
        log.read(index, 0, log.lengths[index], list(log.fields))


FILES = [
    ("npz", "episode_000001.npz"), ("lerobot", "meta/info.json"), ("lerobot", "data/chunk-000/file-000.parquet"),
    ("lerobot", "meta/episodes/chunk-000/file-000.parquet"), ("lerobot_v21", "meta/episodes.jsonl"),
    ("droid", "trajectory.h5"), ("droid", "*.mp4"), ("droid", "metadata_*.json"), ("films", "*.csv"),
    ("films", "*.parquet"), ("films", "*.mp4"), ("hdf5", "episode_1.hdf5"),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "loop"])
@pytest.mark.parametrize("name, pattern", FILES)
def test_what_is_no_plain_file_of_the_log_is_refused(name, pattern, kind, copy, tmp_path):
    path = copy(name)
    victim = sorted(path.rglob(pattern))[0] if "/" not in pattern else path / pattern
    outside = tmp_path / "outside"
    victim.rename(outside)
    if kind == "link":
        victim.symlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(victim)
    elif kind == "loop":
        victim.symlink_to(victim)
    else:
        victim.mkdir()
    refused(path, r"is a (link|pipe|folder)|holds no|is missing|is no file|no steps|none that is known|is nowhere")


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "loop"])
@pytest.mark.parametrize("name", ["a.png", "a.npy", "a.ply", "a.wav", "a.mp4"])
def test_what_is_no_plain_file_of_a_folder_of_files_is_refused(name, kind, tmp_path):
    place = tmp_path / "log"
    place.mkdir()
    (tmp_path / name).write_bytes(b"secret")
    if kind == "pipe":
        os.mkfifo(place / name)
    elif kind == "folder":
        (place / name).mkdir()
    else:
        (place / name).symlink_to(tmp_path / name if kind == "link" else name)
    refused(place, "is a (link|pipe|folder)|holds no film|none that is known")


def test_sums_are_compared_for_plain_files_of_the_log_only(tmp_path, logs):
    path = shutil.copytree(logs["hdf5"], tmp_path / "log")
    (tmp_path / "secret").write_text("secret")
    os.mkfifo(path / "pipe")
    for name, said in (("../secret", "leads out"), ("pipe", "is a pipe")):
        entry = {"bytes": 0, "sha256": "0" * 64}
        (path / "checksums.json").write_text(json.dumps({"files": {name: entry}}))
        with pytest.raises(BadEpisode, match=said):
            open_log(path).checksums.check_all()
    (path / "checksums.json").unlink()
    (path / "checksums.json").symlink_to("nowhere")
    refused(path, "is a link")


@pytest.mark.parametrize("folder", ["meta", "meta/episodes", "meta/episodes/chunk-000", "data", "data/chunk-000"])
def test_a_linked_folder_of_a_log_is_refused(folder, copy, tmp_path):
    path = copy("lerobot")
    (path / folder).rename(tmp_path / "elsewhere")
    (path / folder).symlink_to(tmp_path / "elsewhere")
    refused(path, "is a link")


@pytest.mark.parametrize("name", ["lerobot", "droid"])
def test_a_playlist_in_place_of_a_film_plays_nothing(name, copy, tmp_path):
    path = copy(name)
    film = sorted(path.rglob("*.mp4"))[0]
    secret = tmp_path / "secret.mp4"
    film.rename(secret)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n"
    for text in (playlist, f"ffconcat version 1.0\nfile '{secret}'\n"):
        film.write_text(text)
        refused(path, "is no mp4, mkv|is no mp4, mov|cut short|has no video|is missing")
        for suffix in (".m3u8", ".txt", ".mp4"):
            film.with_suffix(suffix).write_text(text)
            with pytest.raises(BadEpisode, match="is no mp4|cut short"):
                VideoFile(film.with_suffix(suffix))


def test_a_film_named_like_a_protocol_is_a_file(tmp_path, logs, monkeypatch):
    film = sorted(logs["films"].rglob("*.mp4"))[0]
    monkeypatch.chdir(tmp_path)
    shutil.copy(film, "concat:a.mp4")
    from pathlib import Path

    assert len(VideoFile(Path("concat:a.mp4"))) == len(VideoFile(film))


def linked(path, places):
    """An HDF5 log some parts of which live in another file."""
    other = path.with_name("other.h5")
    shutil.copy(path, other)
    with h5py.File(path, "r+") as file:
        for place, link in places.items():
            del file[place]
            file[place] = link(other.name, place)


LINKS = {
    "external": h5py.ExternalLink,
    "soft": lambda _, place: h5py.SoftLink("/elsewhere/" + place),
}


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("layout, place", [
    ("robomimic", "data"), ("robomimic", "data/demo_0"), ("robomimic", "data/demo_0/actions"),
    ("robomimic", "data/demo_0/obs"), ("minari", "episode_0"), ("minari", "episode_0/observations"),
    ("hdf5", "observations"), ("hdf5", "action"), ("droid", "observation"), ("droid", "observation/robot_state"),
])  # fmt: skip
def test_a_linked_group_or_dataset_is_refused(layout, place, kind, tmp_path):
    ours = NpzStore(synthetic_log(tmp_path / "npz", episodes=1))
    path = LAYOUTS[layout](ours, tmp_path / layout)
    file = path if path.is_file() else sorted([*path.rglob("*.h*5"), *path.rglob("*.h5")])[0]
    for note in tmp_path.rglob("*checksums.json"):
        note.unlink()
    linked(file, {place: LINKS[kind]})
    if layout == "robomimic":
        with pytest.raises(BadEpisode, match="link"):
            open_log(path, format="robomimic")
    refused(path, "link")


def test_a_dataset_kept_in_another_file_is_refused(tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(80))
    with h5py.File(tmp_path / "log.h5", "w") as file:
        file.create_dataset("action", (10, 2), "f4", external=[(str(tmp_path / "secret.bin"), 0, 80)])
    refused(tmp_path / "log.h5", "does not lie in this file")
    layout = h5py.VirtualLayout(shape=(10, 2), dtype="f4")
    layout[:] = h5py.VirtualSource(tmp_path / "log.h5", "action", shape=(10, 2))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("action", layout)
    refused(tmp_path / "virtual.h5", "does not lie in this file|shape")


BAD_PATHS = ["nowhere.png", "folder", "pipe.png", "link.png", "../outside.png", "/etc/hostname", "a\0b.png", "x" * 5000]


@pytest.mark.parametrize("told", BAD_PATHS)
def test_a_picture_is_looked_up_inside_of_the_log_only(told, copy, tmp_path):
    import pyarrow

    path = copy("pictures")
    table = path / "data/chunk-000/file-000.parquet"
    held = Table(table)
    columns = {name: held.values(name) if "images" in name else held.array(name) for name in held.columns}
    picture = columns["observation.images.left"][0]["bytes"]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    cells = [{"bytes": None, "path": told}] * len(columns["observation.images.left"])
    columns["observation.images.left"] = pyarrow.array(cells, type=kind)
    columns["observation.images.right"] = pyarrow.array(columns["observation.images.right"], type=kind)
    write_table(table, columns)
    (path / "folder").mkdir()
    os.mkfifo(path / "pipe.png")
    (tmp_path / "outside.png").write_bytes(picture)
    (path / "link.png").symlink_to(tmp_path / "outside.png")
    refused(path, "field 'observation.images.left' holds a damaged image|field 'path'")
    if told == "nowhere.png":
        (path / told).write_bytes(picture)
        log = open_log(path)
        assert log.read(0, 0, 1, ["observation.images.left"])["observation.images.left"].any()


def test_a_template_of_paths_stays_inside(copy):
    path = copy("lerobot")
    info = json.loads((path / "meta/info.json").read_text())
    for template in ("../{file_index}.parquet", "/etc/{file_index}", "a/../../{file_index}.parquet"):
        (path / "meta/info.json").write_text(json.dumps(info | {"data_path": template}))
        refused(path, "leads out of the log|expected a template")


def test_a_name_that_is_no_text_is_refused_in_words_that_can_be_printed(tmp_path, logs):
    film = sorted(logs["films"].rglob("*.mp4"))[0]
    (tmp_path / "clips").mkdir()
    shutil.copy(film, os.fsencode(tmp_path / "clips") + b"/bad_\xff.mp4")
    shutil.copy(film, tmp_path / "clips/good.mp4")
    log = open_log(tmp_path / "clips")
    assert list(log.damaged) == [0] and log.lengths[1] == len(VideoFile(film))
    assert log.damaged[0].encode().isascii() and "bad_" in log.damaged[0]


def test_members_of_hdf5_with_strange_names_or_shapes_are_refused(copy):
    import h5py

    path = copy("droid")
    (table,) = sorted(path.rglob("trajectory.h5"))[:1]
    with h5py.File(table, "a") as file:
        group = file["observation/robot_state"]
        joints = group["joint_positions"][:]
        del group["joint_positions"]
        group["joint_positions"] = joints[..., None]
    log = open_log(path)
    assert "expected a vector" in log.damaged[0] and len(log.damaged) == 1
    with h5py.File(table, "a") as file:
        group = file["observation/robot_state"]
        group.id.links.create_hard(b"joint\x9a'", group["joint_positions"].parent.id, b"joint_positions")
    assert "field 'joint" in open_log(path).damaged[0] and "no text" in open_log(path).damaged[0]


def test_text_that_is_no_text_in_a_header_is_refused(copy):
    path = copy("lerobot")
    info = (path / "meta/info.json").read_text()
    (path / "meta/info.json").write_text(info.replace("observation.state", "observation.\\ud800"))
    refused(path, "is not JSON")
    (path / "meta/info.json").write_text('{"a":' * 200 + "1" + "}" * 200)
    refused(path, "nested too deep")


def test_only_png_and_jpeg_are_decoded(tmp_path):
    from PIL import Image

    from jepa_mpc.trajectories.formats.image_codec import decode_picture

    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.bmp")
    with pytest.raises(BadEpisode, match="no sound PNG or JPEG"):
        decode_picture((tmp_path / "a.bmp").read_bytes(), (8, 8, 3))
