"""Writes LeRobotDataset v3.0: tables of 100 MB, videos of 200 MB, statistics per episode and over all.

The dataset is written atomically: after a full disk or a kill nothing incomplete remains under its name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jepa_mpc import __version__
from jepa_mpc.files import atomic_folder
from jepa_mpc.trajectories.checksums import NAME, write_checksums
from jepa_mpc.trajectories.episode import DEPTH, EPISODE_INDEX, FRAME_INDEX, IMAGES, TASK_INDEX, TIMESTAMP
from jepa_mpc.trajectories.formats.base import Log, blocks, fault
from jepa_mpc.trajectories.formats.depth import DepthCodes, encode_depth
from jepa_mpc.trajectories.formats.image_codec import encode_png
from jepa_mpc.trajectories.formats.lerobot_base import ORIGIN
from jepa_mpc.trajectories.formats.lerobot_features import INFO, THEIR_NAMES
from jepa_mpc.trajectories.formats.summary import DepthSummary, PictureSummary, merge, summary
from jepa_mpc.trajectories.formats.tables import TableWriter, image_column, write_table
from jepa_mpc.trajectories.formats.videos import DEPTH_CODEC, ENCODERS, GREY, VideoEncoder

Frames = Literal["image", "h264", "av1", "h264_lossless"]
DATA_MB, VIDEO_MB, CHUNK = 100, 200, 1000
GROUP_BYTES = 32 << 20  # of encoded images in a row group
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
COUNTERS = (TIMESTAMP, FRAME_INDEX, EPISODE_INDEX, "index", TASK_INDEX)
NO_TASK = "no task given"
CODES = DepthCodes()


def write_lerobot(
    log: Log, folder: Path, *, frames: Frames = "h264", progress: Callable[[Iterable[int]], Iterable[int]] = iter
) -> Path:
    """Write any log as LeRobotDataset v3.0.

    Args:
        log: The log; its rate must be a whole number of steps per second.
        folder: Folder of the dataset; an existing one is replaced as a whole.
        frames: A video codec, or `image` for lossless PNG images inside the tables. Depth is stored in 12-bit greyscale
            videos, or as float32 TIFF images inside the tables.
        progress: Wraps the loop over episodes (a progress bar).

    Raises:
        ValueError: If the rate or the storage of frames is not supported.
        BadEpisode: If an episode is damaged or its times are uneven.
        OSError: If the disk is full; nothing remains under the name.
    """
    fps = round(1 / log.dt_s) if log.dt_s > 0 else 0
    if fps < 1 or abs(fps * log.dt_s - 1) > 1e-6:
        raise ValueError(
            f"LeRobot counts whole frames per second, this log has steps of {log.dt_s} s: give robot.hz=..."
        )
    if frames != "image" and frames not in ENCODERS:
        raise ValueError(f"unknown frames {frames!r}; known: image, {', '.join(ENCODERS)}")
    with atomic_folder(folder) as draft:
        _Writer(log, draft, fps=fps, frames=frames).write(progress)
        write_checksums(draft, place=draft / NAME)
    return folder


class _Writer:
    """One pass over a log."""

    def __init__(self, log: Log, folder: Path, *, fps: int, frames: str) -> None:
        self.log, self.folder, self.fps, self.frames = log, folder, fps, frames
        self.images = [IMAGES + camera for camera in log.cameras]
        self.depths = [n for n, one in log.fields.items() if n.startswith(DEPTH) and len(one.shape) == 2]
        self.keys = {name: self._key(name) for name in log.fields}
        self.rows = [n for n in log.fields if n not in (*self.images, *self.depths, *COUNTERS)]
        self.first = 0
        self.tables = _Tables(folder)
        self.films = {n: _Films(folder, self.keys[n], fps=fps, codec=frames) for n in self.images}
        self.films |= {n: _Films(folder, self.keys[n], fps=fps, codec=DEPTH_CODEC) for n in self.depths}
        self.tasks: dict[str, int] = {}
        self.entries: list[dict[str, Any]] = []
        self.summaries: list[dict[str, dict[str, Any]]] = []

    def write(self, progress: Callable[[Iterable[int]], Iterable[int]]) -> None:
        for index in progress(range(len(self.log.lengths))):
            self._episode(index)
        self.tables.close()
        for film in self.films.values():
            film.close()
        self._meta()

    def _episode(self, index: int) -> None:
        length = self.log.lengths[index]
        clock = [name for name in (TIMESTAMP, TASK_INDEX) if name in self.log.fields]
        columns = self.log.read(index, 0, length, [*self.rows, *clock])
        self._check_clock(columns, index)
        tasks, task_index = self._number_tasks(index, columns.get(TASK_INDEX, np.zeros(length, np.int64)))
        part: dict[str, Any] = {self.keys[name]: _flat(columns[name]) for name in self.rows}
        part |= {
            TIMESTAMP: (np.arange(length) / self.fps).astype(np.float32),
            FRAME_INDEX: np.arange(length),
            EPISODE_INDEX: np.full(length, index),
            "index": np.arange(self.first, self.first + length),
            TASK_INDEX: task_index,
        }
        found = {name: summary(values) for name, values in part.items()}
        entry: dict[str, Any] = {
            "episode_index": index, "tasks": tasks, "length": length,
            "dataset_from_index": self.first, "dataset_to_index": self.first + length,
            **self.tables.begin(),
            "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
        }  # fmt: skip
        found |= self._pictures(index, part, entry)
        entry |= {f"stats/{name}/{key}": value for name, facts in found.items() for key, value in facts.items()}
        self.entries.append(entry)
        self.summaries.append(found)
        self.first += length

    def _pictures(self, index: int, part: dict[str, Any], entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Write rows and pictures of an episode block by block, note where the pictures lie, and sum them up."""
        length = self.log.lengths[index]
        sums = {name: (DepthSummary if name in self.depths else PictureSummary)(length) for name in self.films}
        if self.frames == "image" and self.films:
            self._write_images(index, part, sums)
        else:
            self.tables.write(part)
            entry |= self._write_films(index, sums)
        return {self.keys[name]: sums[name].result() for name in (*self.images, *self.depths)}

    def _write_films(self, index: int, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Append an episode to the videos; where it lies in them."""
        begins = {name: film.begin() for name, film in self.films.items()}
        for block in blocks(self.log, index, list(self.films)):
            for name, film in self.films.items():
                sums[name].add(block[name])
                film.write(self._levels(block[name], name, index))
        return {key: value for name, film in self.films.items() for key, value in film.end(begins[name]).items()}

    def _write_images(self, index: int, part: Mapping[str, np.ndarray], sums: Mapping[str, Any]) -> None:
        """Write rows with their encoded pictures; an episode with more than 32 MB of them is several row groups."""
        first = step = size = 0
        cells: dict[str, list[bytes]] = {name: [] for name in self.films}
        for block in blocks(self.log, index, list(self.films)):
            for name, pictures in block.items():
                sums[name].add(pictures)
            for step_pictures in zip(*(block[name] for name in self.films), strict=True):
                for name, picture in zip(self.films, step_pictures, strict=True):
                    cells[name].append((encode_depth if name in self.depths else encode_png)(picture))
                    size += len(cells[name][-1])
                step += 1
                if size > GROUP_BYTES or step == self.log.lengths[index]:
                    rows = {name: values[first:step] for name, values in part.items()}
                    images = {self.keys[name]: image_column(encoded) for name, encoded in cells.items()}
                    self.tables.write(rows | images)
                    cells, first, size = {name: [] for name in self.films}, step, 0

    def _key(self, name: str) -> str:
        """LeRobot's name of a field: depth is listed among the cameras."""
        if name not in self.depths:
            return THEIR_NAMES.get(name, name)
        key = IMAGES + name.removeprefix(DEPTH)
        return key + "_depth" if key in self.images else key

    def _levels(self, pictures: np.ndarray, name: str, index: int) -> Iterable[np.ndarray]:
        """The frames of a video: colour images unchanged, depth as codes."""
        try:
            yield from map(CODES.encode, pictures) if name in self.depths else pictures
        except ValueError as error:
            raise fault(self.log.path, field=name, problem=str(error), episode=index) from error

    def _number_tasks(self, index: int, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
        """The task texts of an episode, and the index of the text for each step."""
        listed = self.log.metadata(index).get("tasks") or [NO_TASK]
        texts = [str(text) for text in (listed if isinstance(listed, list | tuple) else [listed])]
        order = list(dict.fromkeys(rows.tolist()))
        if len(order) == 1:
            texts = texts[:1]
        if len(order) != len(texts):
            problem = f"has {len(order)} numbers, the episode names the tasks {texts}"
            raise fault(self.log.path, field=TASK_INDEX, problem=problem, remedy="name each task", episode=index)
        numbers = [self.tasks.setdefault(text, len(self.tasks)) for text in texts]
        told = dict(zip(order, numbers, strict=True))
        return list(dict.fromkeys(texts)), np.array([told[number] for number in rows.tolist()], dtype=np.int64)

    def _check_clock(self, columns: Mapping[str, np.ndarray], index: int) -> None:
        times = columns.get(TIMESTAMP)
        if times is not None and np.abs(times - times[0] - np.arange(len(times)) / self.fps).max() > 0.5 / self.fps:
            problem = f"is uneven, LeRobot needs steps of 1/{self.fps} s"
            raise fault(self.log.path, field=TIMESTAMP, problem=problem, remedy="resample the log", episode=index)

    def _meta(self) -> None:
        write_table(
            self.folder / EPISODES_PATH, {key: [entry[key] for entry in self.entries] for key in self.entries[0]}
        )
        write_table(
            self.folder / "meta/tasks.parquet",
            {"task_index": np.array(list(self.tasks.values())), "task": list(self.tasks)},
            index="task",
        )
        total = {name: merge([found[name] for found in self.summaries]) for name in self.summaries[0]}
        origin = {
            "written_by": f"jepa-mpc {__version__}",
            "episodes": [self.log.metadata(index) for index in range(len(self.log.lengths))],
        }
        for name, value in (("meta/stats.json", total), (INFO, self._info()), (ORIGIN, origin)):
            (self.folder / name).write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")

    def _info(self) -> dict[str, Any]:
        return {
            "codebase_version": "v3.0", "robot_type": self.log.metadata(0).get("robot_type"), "fps": self.fps,
            "total_episodes": len(self.entries), "total_frames": self.first, "total_tasks": len(self.tasks),
            "chunks_size": CHUNK, "data_files_size_in_mb": DATA_MB, "video_files_size_in_mb": VIDEO_MB,
            "splits": {"train": f"0:{len(self.entries)}"}, "data_path": DATA_PATH,
            "video_path": None if self.frames == "image" else VIDEO_PATH,
            "features": {self.keys[name]: self._feature(name) for name in (*self.films, *self.rows)}
            | {name: _counter(name) for name in COUNTERS},
        }  # fmt: skip

    def _feature(self, name: str) -> dict[str, Any]:
        field = self.log.fields[name]
        if name not in self.films:
            return {"dtype": field.dtype, "shape": list(field.shape) or [1], "names": field.names}
        depth = name in self.depths
        shape = [*field.shape[:2], 1 if depth else 3]
        names = field.names or ["height", "width", "channels"]
        info: dict[str, Any] = {"is_depth_map": True, "depth_unit": field.unit} if depth else {}
        if self.frames != "image":
            info = {"is_depth_map": False, **self._film_info(shape, depth), **info}
        kind = "image" if self.frames == "image" else "video"
        return {"dtype": kind, "shape": shape, "names": names} | ({"info": info} if info else {})

    def _film_info(self, shape: list[int], depth: bool) -> dict[str, Any]:
        pixels = GREY if depth else ENCODERS[self.frames][1]
        codec = "hevc" if depth else "av1" if self.frames == "av1" else "h264"
        return {
            "video.height": shape[0], "video.width": shape[1], "video.codec": codec, "video.pix_fmt": pixels,
            "video.fps": self.fps, "video.channels": shape[2], "has_audio": False,
            **(CODES.to_info() if depth else {}),
        }  # fmt: skip


class _Tables:
    """The tables of all rows; a new file begins when one has grown large."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number, self.bytes = folder, -1, 0
        self.table: TableWriter | None = None

    def begin(self) -> dict[str, int]:
        """Where the rows of the next episode lie."""
        if self.table is None or self.bytes > DATA_MB << 20:
            self.close()
            self.number, self.bytes = self.number + 1, 0
            numbers = {"chunk_index": self.number // CHUNK, "file_index": self.number % CHUNK}
            self.table = TableWriter(self.folder / DATA_PATH.format(**numbers))
        return {"data/chunk_index": self.number // CHUNK, "data/file_index": self.number % CHUNK}

    def write(self, part: Mapping[str, Any]) -> None:
        """Append rows of the episode, as a row group."""
        assert self.table is not None
        self.table.write(part)
        self.bytes += sum(values.nbytes for values in part.values())

    def close(self) -> None:
        if self.table is not None:
            self.table.__exit__(None, None, None)
            self.table = None


class _Films:
    """The videos of one camera; a new file begins when one has grown large."""

    def __init__(self, folder: Path, key: str, *, fps: int, codec: str) -> None:
        self.folder, self.key, self.fps, self.codec, self.number = folder, key, fps, codec, -1
        self.film: VideoEncoder | None = None

    def begin(self) -> dict[str, Any]:
        """Where the next episode lies, and when it begins there."""
        if self.film is None or self.film.written_bytes() > VIDEO_MB << 20:
            self.close()
            self.number += 1
            numbers = {"chunk_index": self.number // CHUNK, "file_index": self.number % CHUNK}
            path = self.folder / VIDEO_PATH.format(video_key=self.key, **numbers)
            self.film = VideoEncoder(path, fps=self.fps, codec=self.codec).__enter__()  # type: ignore[arg-type]
        numbers = {"chunk_index": self.number // CHUNK, "file_index": self.number % CHUNK}
        return {**numbers, "from_timestamp": self.film.count / self.fps}

    def write(self, pictures: Iterable[np.ndarray]) -> None:
        """Append some of its pictures."""
        assert self.film is not None
        self.film.write(pictures)

    def end(self, begun: Mapping[str, Any]) -> dict[str, Any]:
        """All that is noted of the episode."""
        assert self.film is not None
        facts = {**begun, "to_timestamp": self.film.count / self.fps}
        return {f"videos/{self.key}/{name}": value for name, value in facts.items()}

    def close(self) -> None:
        if self.film is not None:
            self.film.__exit__(None, None, None)
            self.film = None


def _flat(column: np.ndarray) -> np.ndarray:
    """Lists of one number are stored as the number."""
    return column[:, 0] if column.ndim == 2 and column.shape[1] == 1 else column


def _counter(name: str) -> dict[str, Any]:
    return {"dtype": "float32" if name == TIMESTAMP else "int64", "shape": [1], "names": None}
