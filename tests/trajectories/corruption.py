"""Damage to logs of every format, drawn from a seed, and a judge that reads what is left in a process of its own."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import struct
import time
import zipfile

import h5py
import numpy as np
from numpy.random import Generator

from jepa_mpc.errors import BadEpisode
from jepa_mpc.trajectories.checksums import NAME, checksums_path, write_checksums
from jepa_mpc.trajectories.episode import ACTION, EE_POSE, STATE, TIMESTAMP
from jepa_mpc.trajectories.formats import open_log
from jepa_mpc.trajectories.formats.tables import Table, write_table
from jepa_mpc.trajectories.robots import MappedLog

LIMIT_S = 5.0
TABLES = (".npz", ".parquet", ".h5", ".hdf5", ".csv", ".mcap")


class NotHere(Exception):
    """This damage does not exist in this format."""


def digest(path):
    """Every bit that a log gives: all fields of all episodes."""
    log = MappedLog(open_log(path))
    sum_ = hashlib.sha256(json.dumps([list(log.lengths), sorted(log.fields)]).encode())
    for index in range(len(log)):
        for name, column in sorted(log.read(index, 0, log.lengths[index], list(log.fields)).items()):
            sum_.update(name.encode() + column.tobytes())
            if column.dtype.kind == "f" and not np.isfinite(column).all():
                return "nan"
    return sum_.hexdigest()


def judge(path):
    """Read a log in a forked process: (what came of it, seconds, bytes of memory that it took more)."""
    reading, writing = os.pipe()
    begun, child = time.monotonic(), os.fork()
    if child == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            signal.alarm(60)
            answer = digest(path)
        except BadEpisode as error:
            answer = f"refused: {error}"
        except BaseException as error:  # noqa: BLE001  a crash is what is looked for
            answer = f"crash: {type(error).__name__}: {error}"
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        os.write(writing, json.dumps([answer[:3000], more * 1024]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    status, usage = os.wait4(child, 0)[1:]
    seconds = min(time.monotonic() - begun, usage.ru_utime + usage.ru_stime)  # others share the machine
    if os.WIFSIGNALED(status) or not said:
        return f"crash: signal {os.WTERMSIG(status)}", seconds, 0
    answer, more = json.loads(said)
    return answer, seconds, more


def size_of(path):
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)


def copy(path, place):
    """A copy of a log; its checksums come along."""
    place.mkdir(parents=True)
    if path.is_dir():
        return shutil.copytree(path, place / path.name)
    with contextlib.suppress(FileNotFoundError):
        shutil.copy(checksums_path(path), place)
    return shutil.copy(path, place / path.name)


def files_of(path, *suffixes):
    """The files of a log that its reader needs, but the sums."""
    found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    unread = ("stats.json", "tasks.parquet", "tasks.jsonl", "origin.json")
    return [p for p in found if not p.name.endswith((NAME, *unread)) and (not suffixes or p.suffix in suffixes)]


def drop_checksums(path):
    checksums_path(path).unlink(missing_ok=True)


def pick(draws: Generator, things):
    things = list(things)
    if not things:
        raise NotHere
    return things[int(draws.integers(len(things)))]


def truncated(path, draws):
    drop_checksums(path)
    file = pick(draws, files_of(path))
    data = file.read_bytes()
    file.write_bytes(data[: int(draws.uniform(0, 1) ** 0.5 * (len(data) - 1))])


def flipped(path, draws):
    """One bit, in a log whose sums were noted."""
    if not checksums_path(path).exists() and not files_of(path, ".npz"):
        write_checksums(path)
    file = pick(draws, files_of(path))
    data = bytearray(file.read_bytes())
    data[int(draws.integers(len(data)))] ^= 1 << int(draws.integers(8))
    file.write_bytes(data)


def edit(path, draws, change, wanted):
    """Rewrite one table with one column changed; `change(array)` gives the new one, or None to leave it out."""
    drop_checksums(path)
    file = pick(draws, [f for f in files_of(path, *TABLES) if "meta" not in f.parts])
    if file.suffix == ".npz":
        edit_npz(file, draws, change, wanted)
    elif file.suffix == ".parquet":
        table = Table(file)
        columns = {name: table.values(name) if "images" in name else table.array(name) for name in table.columns}
        name = pick(draws, [n for n in columns if isinstance(columns[n], np.ndarray) and wanted(n, columns[n])])
        put(columns, name, change(columns[name]))
        if len({len(column) for column in columns.values()}) > 1:
            raise NotHere  # a table cannot have columns of different lengths
        write_table(file, columns)
    elif file.suffix in (".h5", ".hdf5"):
        edit_hdf5(file, draws, change, wanted)
    elif file.suffix == ".csv":
        edit_csv(file, draws, change, wanted)
    else:
        raise NotHere


def put(columns, name, value):
    if value is None:
        del columns[name]
    else:
        columns[name] = value


def edit_npz(file, draws, change, wanted):
    with zipfile.ZipFile(file) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    arrays = {n: np.load(io.BytesIO(data)) for n, data in contents.items() if n.endswith(".npy")}
    name = pick(draws, [n for n in arrays if wanted(n, arrays[n])])
    new = change(arrays[name])
    del contents[name]
    if new is not None:
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.asarray(new), version=(1, 0))
        contents[name] = buffer.getvalue()
    with zipfile.ZipFile(file, "w") as archive:
        for key, data in contents.items():
            archive.writestr(key, data)


def edit_hdf5(file, draws, change, wanted):
    with h5py.File(file, "r+") as opened:
        names = []
        opened.visititems(lambda n, item: names.append(n) if isinstance(item, h5py.Dataset) else None)
        name = pick(draws, [n for n in names if opened[n].dtype != object and wanted(n, opened[n])])
        new = change(opened[name][()])
        del opened[name]
        if new is not None:
            opened[name] = new


def edit_csv(file, draws, change, wanted):
    header, *lines = [line.split(",") for line in file.read_text().splitlines()]
    columns = {name: np.array([float(line[i]) for line in lines]) for i, name in enumerate(header)}
    name = pick(draws, [n for n in columns if wanted(n, columns[n])])
    new = change(columns[name])
    if new is not None and (len(new) != len(lines) or new.dtype != np.float64):
        raise NotHere  # a text table knows neither dtypes nor columns of different lengths
    put(columns, name, new)
    rows = zip(*(map(repr, map(float, column)) for column in columns.values()), strict=True)
    file.write_text("\n".join([",".join(columns), *map(",".join, rows)]) + "\n")


def is_motion(name, column):
    """State, pose, action or time, by whatever name."""
    words = (ACTION, STATE, EE_POSE, TIMESTAMP, "position", "qpos", "state", "ee_pose", "gripper")
    skipped = ("extrinsics", "timestamp_", "index", "joint_velocities", "next_")
    return column.dtype.kind == "f" and any(w in name for w in words) and not any(w in name for w in skipped)


def not_a_number(path, draws):
    def poison(column):
        flat = column.copy()
        flat.reshape(-1)[int(draws.integers(flat.size))] = pick(draws, [np.nan, np.inf, -np.inf])
        return flat

    edit(path, draws, poison, is_motion)


def misshapen(path, draws):
    kind = pick(draws, ["dtype", "shape", "missing"])

    def change(column):
        if kind == "missing":
            return None
        if kind == "dtype":
            return column.astype(pick(draws, [np.int16, np.float16 if column.dtype != np.float16 else np.int8]))
        cut = column[:-1] if column.ndim == 1 else pick(draws, [column[:-1], column[:, :-1], column[:, :, None]])
        return np.ascontiguousarray(cut)

    def wanted(name, column):
        return is_motion(name, column) and (kind != "shape" or column.size > 1)

    edit(path, draws, change, wanted)


def backwards(path, draws):
    def change(column):
        times = column.copy()
        at = int(draws.integers(1, len(times)))
        times[at] = times[at - 1] - pick(draws, [0.0, 0.1])
        return times

    edit(path, draws, change, lambda name, column: TIMESTAMP in name and column.ndim == 1 and len(column) > 1)


def empty(path, draws):
    """An episode without steps."""
    drop_checksums(path)
    file = pick(draws, [f for f in files_of(path, *TABLES, ".jsonl") if "chunk" not in f.name])
    if file.suffix == ".jsonl" or "meta" in file.parts:
        edit_lengths(path, draws, 0)
    elif file.suffix == ".csv":
        file.write_text(file.read_text().splitlines()[0] + "\n")
    elif file.suffix == ".npz":
        rewrite_all_npz(file)
    elif file.suffix in (".h5", ".hdf5"):
        with h5py.File(file, "r+") as opened:
            groups = [g for g in opened.get("data", opened) if g.startswith(("demo", "episode"))]
            root = opened.get("data", opened)[pick(draws, groups)] if groups else opened
            names = []
            root.visititems(lambda n, item: names.append(n) if isinstance(item, h5py.Dataset) else None)
            for name in names:
                data = root[name][:0] if root[name].dtype != object else np.zeros(0, np.uint8)
                del root[name]
                root[name] = data
    elif file.suffix == ".parquet":
        table = Table(file)
        write_table(file, {name: table.array(name)[:0] for name in table.columns if "images" not in name})
    else:
        raise NotHere


def rewrite_all_npz(file):
    with zipfile.ZipFile(file) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for key, data in contents.items():
            if key.endswith(".npy"):
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, np.load(io.BytesIO(data))[:0], version=(1, 0))
                data = buffer.getvalue()
            archive.writestr(key, data)


def edit_lengths(path, draws, value):
    """Another number of steps in LeRobot's tables of episodes."""
    lines, table = path / "meta/episodes.jsonl", path / "meta/episodes/chunk-000/file-000.parquet"
    if lines.exists():
        rows = [json.loads(line) for line in lines.read_text().splitlines()]
        pick(draws, rows)["length"] = value
        lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif table.exists():
        found = Table(table)
        columns = {n: found.values(n) for n in found.columns if not n.startswith("stats/")}
        name = pick(draws, ["length", "dataset_to_index", "dataset_from_index"])
        columns[name][int(draws.integers(len(columns[name])))] = value
        write_table(table, columns)
    else:
        raise NotHere


def miscounted(path, draws):
    """Another count in a header, or an episode that is gone."""
    drop_checksums(path)
    kinds = []
    if (path / "meta/info.json").exists():
        kinds += ["info", "lengths"]
    if (path / "data/metadata.json").exists():
        kinds += ["minari"]
    if files_of(path, ".hdf5") and path.is_file():
        kinds += ["attributes"]
    if next(path.glob("episode_*.npz"), None) or files_of(path, ".mp4"):
        kinds += ["gone"]
    kind = pick(draws, kinds)
    if kind == "info":
        change_json(path / "meta/info.json", pick(draws, ["total_episodes", "total_frames"]), draws)
    elif kind == "lengths":
        edit_lengths(path, draws, int(draws.integers(1, 30)) + 30)
    elif kind == "minari":
        change_json(path / "data/metadata.json", pick(draws, ["total_episodes", "total_steps"]), draws)
    elif kind == "attributes":
        with h5py.File(path, "r+") as file:
            owner = pick(draws, [file["data"], *file["data"].values()])
            owner.attrs["total" if "total" in owner.attrs else "num_samples"] = int(draws.integers(100, 200))
    else:
        middle = files_of(path, ".npz")[:-1] or files_of(path, ".mp4")
        pick(draws, middle).unlink()


def change_json(path, name, draws):
    value = json.loads(path.read_text())
    value[name] += int(draws.integers(1, 5))
    path.write_text(json.dumps(value))


def boasting(path, draws):
    """Sizes up to 2^60 in a header."""
    drop_checksums(path)
    huge = int(2 ** draws.uniform(33, 60))
    file = pick(draws, files_of(path, ".npz", ".h5", ".hdf5", ".json", ".jsonl", ".parquet", ".mp4"))
    data = file.read_bytes()
    if file.suffix in (".json", ".jsonl"):
        numbers = [
            n for n in ("length", "total_frames", "total_episodes", "total_steps", "fps") if f'"{n}"' in data.decode()
        ]
        name = pick(draws, numbers)
        before, _, after = data.decode().partition(f'"{name}": ')
        file.write_text(f'{before}"{name}": {huge}{after.lstrip("0123456789")}')
    elif file.suffix == ".npz":
        edit_header(file, draws, huge)
    elif file.suffix == ".mp4":
        box, offset = pick(
            draws, [(b"stsz", 8), (b"stsz", 12), (b"stts", 8)]
        )  # sizes of frames, and how many there are
        at = data.rfind(box) + offset
        file.write_bytes(data[:at] + struct.pack(">I", min(huge, 2**32 - 1)) + data[at + 4 :])
    elif file.suffix == ".parquet":
        edit_lengths(path, draws, min(huge, 2**60)) if "meta" in file.parts else truncated(path, draws)
    else:
        with h5py.File(file) as opened:
            sizes = []
            opened.visititems(lambda n, item: sizes.append(item.shape) if isinstance(item, h5py.Dataset) else None)
        shape = pick(draws, [shape for shape in sizes if len(shape) > 1])
        told = struct.pack(f"<{len(shape)}Q", *shape)
        at = data.find(told)
        if at < 0:
            raise NotHere
        new = struct.pack("<Q", huge) + told[8:]
        file.write_bytes(data.replace(told + told, new + new, 1) if told + told in data else data.replace(told, new, 1))


def edit_header(file, draws, huge):
    with zipfile.ZipFile(file) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    name = pick(draws, [n for n in contents if n.endswith(".npy")])
    array = np.load(io.BytesIO(contents[name]))
    header = repr({"descr": array.dtype.str, "fortran_order": False, "shape": (huge, *array.shape[1:])}) + "\n"
    contents[name] = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + array.tobytes()
    with zipfile.ZipFile(file, "w") as archive:
        for key, data in contents.items():
            archive.writestr(key, data)


def resized(path, draws):
    """Pictures of another size or with other channels in one episode or header."""
    drop_checksums(path)
    films = files_of(path, ".mp4")
    if films:
        film = pick(draws, films)
        from jepa_mpc.trajectories.formats.videos import VideoEncoder, VideoFile

        old = VideoFile(film)
        frames = old.read(0, len(old))
        with VideoEncoder(film, fps=old.fps, codec="h264_lossless") as new:
            new.write(frames[:, : -2 * int(draws.integers(1, 3))])
        return

    def change(column):
        return np.ascontiguousarray(pick(draws, [column[..., :1], column[:, :-1], column.reshape(len(column), -1)]))

    edit(path, draws, change, lambda name, column: column.dtype == np.uint8 and len(column.shape) == 4)


KINDS = {  # how many of the full five hundred
    "truncated": (truncated, 100), "flipped": (flipped, 100), "not_a_number": (not_a_number, 60),
    "misshapen": (misshapen, 80), "miscounted": (miscounted, 40), "backwards": (backwards, 40), "empty": (empty, 20),
    "boasting": (boasting, 30), "resized": (resized, 30),
}  # fmt: skip
