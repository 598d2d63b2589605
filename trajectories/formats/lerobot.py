"""LeRobotDataset: tables of many episodes (v3.0) or one each (v2.1), and films or pictures beside them.

    v3.0  data/chunk-000/file-000.parquet         videos/<key>/chunk-000/file-000.mp4        meta/episodes/chunk-000/...
    v2.1  data/chunk-000/episode_000000.parquet   videos/chunk-000/<key>/episode_000000.mp4  meta/episodes.jsonl

Nothing is looked up by position alone: the rows of an episode are those that carry its number, and a film's frames
those that are shown at its times.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.episode import COLUMNS, DONE, EPISODE_INDEX, FRAME_INDEX, IMAGES, TIMESTAMP
from jepa_mpc.trajectories.formats.base import LogReader, cameras_in, fault, image_shape, read_json
from jepa_mpc.trajectories.formats.pictures import decode_picture
from jepa_mpc.trajectories.formats.tables import Table
from jepa_mpc.trajectories.formats.videos import VideoFile

INFO, ORIGIN = "meta/info.json", "meta/origin.json"
TEMPLATE = re.compile(
    r"[\w./-]*(\{(chunk_index|file_index|episode_chunk|episode_index|video_key)(:0?\d?d)?\}[\w./-]*)+"
)
NUMERIC = {"float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"}
THEIR_NAMES: dict[str, str] = {DONE: "next.done"}
OUR_NAMES: dict[str, str] = {theirs: ours for ours, theirs in THEIR_NAMES.items()}
KEPT_TABLES = 4


class Entry(NamedTuple):
    """Where one episode lies: its number of steps, what the log says of it, and its row in the tables of episodes."""

    length: int
    tasks: tuple[str, ...]
    places: Mapping[str, Any]


class LeRobotReader(LogReader):
    """What both versions share; a subclass says where the rows and films of an episode lie.

    Args:
        path: The folder that holds `meta/info.json`.

    Raises:
        BadEpisode: If a header is damaged or counts, lengths and features contradict each other.
    """

    version: ClassVar[str]

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.checksums.check(self.path / INFO)
        self.info = read_json(self.path / INFO)
        if self.info.get("codebase_version") != self.version:
            problem = f"is {self.info.get('codebase_version')!r}, this reader knows {self.version!r}"
            raise fault(INFO, field="codebase_version", problem=problem, remedy="convert the log with lerobot")
        fps = self.info.get("fps")
        if not isinstance(fps, int | float) or not 0 < fps <= 10_000:
            raise fault(INFO, field="fps", problem=f"is {fps!r}", remedy="expected frames per second")
        self.dt_s = 1.0 / fps
        self._read_features(float(fps))
        self.entries = self._read_entries()
        self.lengths = [entry.length for entry in self.entries]
        self._check_totals()
        self._tables: dict[Path, Table] = {}
        self._films: dict[Path, VideoFile] = {}
        self._origin = self._read_origin()

    def metadata(self, index: int) -> dict[str, Any]:
        """Tasks and robot; for a log that was converted from another, all that the other said."""
        known = {"tasks": list(self.entries[index].tasks), "robot_type": self.info.get("robot_type")}
        return known | (self._origin[index] if self._origin else {})

    def sources(self, index: int) -> tuple[Path, ...]:
        """The table and the films of one episode."""
        films = (self.film_of(index, key)[0] for key, kind in self._kinds.items() if kind == "video")
        return (self.table_of(index), *dict.fromkeys(films))

    @abstractmethod
    def table_of(self, index: int) -> Path:
        """The table that holds the rows of an episode."""

    @abstractmethod
    def film_of(self, index: int, key: str) -> tuple[Path, float]:
        """The film that holds an episode of one camera, and when it begins there, s."""

    @abstractmethod
    def _read_entries(self) -> list[Entry]: ...

    def columns(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Steps start..stop-1 of the named fields."""
        table = self._table(self.table_of(episode))
        first = self._first_row(table, episode)
        return {name: self._column(table, first, episode, start, stop, name) for name in names}

    def _column(self, table: Table, first: int, episode: int, start: int, stop: int, name: str) -> np.ndarray:
        kind, field = self._kinds[name], self.fields[name]
        theirs = THEIR_NAMES.get(name, name)
        if kind == "video":
            return self._frames(episode, start, stop, name)
        if kind == "image":
            cells = table.values(theirs, start=first + start, stop=first + stop)
            return np.stack([self._picture(cell, name, episode) for cell in cells])
        rows = table.array(theirs, start=first + start, stop=first + stop)
        if rows.ndim == 1 and field.shape == (1,):  # lists of one number are stored as the number
            rows = rows[:, None]
        if str(rows.dtype) not in ({kind, "float64"} if name == TIMESTAMP else {kind}):
            problem, where = f"has dtype {rows.dtype}, {INFO} declares {kind}", self.where(episode)
            raise fault(where, field=theirs, problem=problem, remedy="restore the table", episode=episode)
        return rows.astype(np.float64) if name == TIMESTAMP else rows

    def _frames(self, episode: int, start: int, stop: int, name: str) -> np.ndarray:
        path, begins_s = self.film_of(episode, name)
        film = self._films.get(path)
        if film is None:
            film = self._films[path] = VideoFile(path)
        where = f"{path.parent.name}/{path.name}"
        if film.size != self.fields[name].shape[:2]:
            problem = f"has pictures of {film.size}, {INFO} declares {self.fields[name].shape[:2]}"
            raise fault(where, field=name, problem=problem, remedy="restore the film", episode=episode)
        first, length = film.number_at(begins_s), self.lengths[episode]
        times = film.times_s[first : first + length]
        wanted = begins_s + np.arange(length) * self.dt_s
        if len(times) < length or np.abs(times - wanted).max() > 0.5 * self.dt_s:
            problem = f"does not show {length} frames from {begins_s:.3f} s on, {self.dt_s:.4f} s apart"
            raise fault(where, field=name, problem=problem, remedy="restore film or table", episode=episode)
        return film.read(first + start, first + stop)

    def _picture(self, cell: Any, name: str, episode: int) -> np.ndarray:
        """Decode one PNG or JPEG cell."""
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if data is None and isinstance(cell, dict) and cell.get("path"):
            data = self._inside(str(cell["path"]), name).read_bytes()
        try:
            return decode_picture(data, self.fields[name].shape)
        except (ValueError, OSError, TypeError, SyntaxError) as error:
            where = self.where(episode)
            raise fault(where, field=name, problem=f"holds a damaged picture ({error})", episode=episode) from error

    def _table(self, path: Path) -> Table:
        if path not in self._tables:
            while len(self._tables) >= KEPT_TABLES:
                self._tables.pop(next(iter(self._tables)))
            self.checksums.check(path)
            self._tables[path] = Table(path)
        return self._tables[path]

    def _first_row(self, table: Table, episode: int) -> int:
        """Where the episode begins in its table; its rows must be together, in order and complete."""
        length, where = self.lengths[episode], table.path
        rows = np.flatnonzero(table.array(EPISODE_INDEX) == episode)
        if len(rows) != length or rows[-1] - rows[0] != length - 1:
            problem = f"occurs in {len(rows)} rows, the log counts {length} steps"
            raise fault(where, field=EPISODE_INDEX, problem=problem, remedy="restore the table", episode=episode)
        frames = table.array(FRAME_INDEX, start=int(rows[0]), stop=int(rows[0]) + length)
        if not np.array_equal(frames, np.arange(length)):
            raise fault(where, field=FRAME_INDEX, problem="must count 0, 1, 2, ...", episode=episode)
        return int(rows[0])

    def _read_features(self, fps: float) -> None:
        features = self.info.get("features")
        if not isinstance(features, dict) or not all(isinstance(feature, dict) for feature in features.values()):
            raise fault(INFO, field="features", problem="is missing or no object", remedy="restore the file")
        declared: dict[str, Field] = {}
        self._kinds: dict[str, str] = {}
        for theirs, feature in features.items():
            kind, shape = str(feature.get("dtype")), feature.get("shape")
            name = OUR_NAMES.get(str(theirs), str(theirs))
            if not isinstance(shape, list | tuple) or not all(
                type(size) is int and 0 <= size < 2**31 for size in shape
            ):
                raise fault(INFO, field=theirs, problem=f"has the shape {shape!r}", remedy="expected whole numbers")
            if kind in ("video", "image"):
                ordered = [*shape[1:], shape[0]] if len(shape) == 3 and shape[0] == 3 != shape[2] else shape
                name = name if name.startswith(IMAGES) else IMAGES + name
                declared[name] = Field(image_shape(ordered, where=INFO, field=theirs), "uint8", "RGB", fps)
            elif kind in NUMERIC and theirs != "index":
                scalar = theirs in OUR_NAMES or (list(shape) == [1] and COLUMNS.get(name, ("", 2, None, ""))[1] == 1)
                dtype = "float64" if name == TIMESTAMP else kind
                declared[name] = Field(
                    () if scalar else tuple(shape), dtype, COLUMNS.get(name, ("", 0, None, ""))[3], fps
                )
            else:
                continue  # texts, and the running number of the row
            self._kinds[name] = kind
        self.fields = declared
        self.cameras = cameras_in(declared)
        missing = [name for name in (TIMESTAMP, FRAME_INDEX, EPISODE_INDEX) if name not in declared]
        if missing:
            raise fault(INFO, field=missing[0], problem="is missing among the features", remedy="restore the file")

    def _check_totals(self) -> None:
        for field, counted in (("total_episodes", len(self.lengths)), ("total_frames", sum(self.lengths))):
            if self.info.get(field) != counted:
                problem = f"is {self.info.get(field)!r}, the tables of episodes count {counted}"
                raise fault(INFO, field=field, problem=problem, remedy="restore meta/ as a whole")
        if not self.lengths:
            raise fault(INFO, field="total_episodes", problem="is 0", remedy="record an episode first")

    def _read_origin(self) -> list[dict[str, Any]]:
        if not (self.path / ORIGIN).exists():
            return []
        listed = read_json(self.path / ORIGIN).get("episodes")
        if not isinstance(listed, list) or len(listed) != len(self.lengths):
            raise fault(ORIGIN, field="episodes", problem="does not list every episode", remedy="delete or restore it")
        return [dict(entry) for entry in listed]

    def _fill(self, template: str, **values: Any) -> Path:
        """A path from one of the templates in info.json, certainly inside of the log."""
        text = self.info.get(template)
        if not isinstance(text, str) or len(text) > 200 or not TEMPLATE.fullmatch(text):
            raise fault(INFO, field=template, problem=f"is {text!r}", remedy="expected a template of a path")
        try:
            filled = text.format(**values)
        except (KeyError, ValueError, IndexError) as error:
            raise fault(INFO, field=template, problem=f"is {text!r}: {error}", remedy="restore the file") from error
        return self._inside(filled, template)

    def _inside(self, relative: str, field: str) -> Path:
        path = self.path / relative
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise fault(INFO, field=field, problem=f"leads out of the log: {relative}", remedy="restore the file")
        return path


class LeRobotV3(LeRobotReader):
    """LeRobotDataset v3.0: many episodes per table and film."""

    format: ClassVar[str] = "lerobot"
    version: ClassVar[str] = "v3.0"

    def table_of(self, index: int) -> Path:
        """The table that holds the rows of an episode."""
        chunk, file = self._numbers(index, "data")
        return self._fill("data_path", chunk_index=chunk, file_index=file)

    def film_of(self, index: int, key: str) -> tuple[Path, float]:
        """The film that holds an episode of one camera, and when it begins there, s."""
        theirs = key if f"videos/{key}/chunk_index" in self.entries[index].places else key.removeprefix(IMAGES)
        chunk, file = self._numbers(index, f"videos/{theirs}")
        begins = self.entries[index].places.get(f"videos/{theirs}/from_timestamp")
        if not isinstance(begins, int | float) or not 0 <= begins < 1e9:
            raise fault("meta/episodes", field=f"videos/{theirs}/from_timestamp", problem=f"is {begins}", episode=index)
        return self._fill("video_path", video_key=theirs, chunk_index=chunk, file_index=file), float(begins)

    def _numbers(self, index: int, prefix: str) -> tuple[int, int]:
        places = self.entries[index].places
        numbers = tuple(places.get(f"{prefix}/{name}") for name in ("chunk_index", "file_index"))
        if not all(isinstance(number, int) and 0 <= number < 10**6 for number in numbers):
            problem = f"is {numbers}"
            raise fault("meta/episodes", field=f"{prefix}/file_index", problem=problem, episode=index)
        return numbers  # type: ignore[return-value]

    def _read_entries(self) -> list[Entry]:
        paths = sorted((self.path / "meta/episodes").glob("chunk-*/file-*.parquet"))
        if not paths:
            raise fault("meta/episodes", field="file", problem="holds no table", remedy="restore meta/ as a whole")
        rows: list[dict[str, Any]] = []
        for path in paths:
            self.checksums.check(path)
            table = Table(path)
            names = [name for name in table.columns if not name.startswith("stats/")]
            columns = [table.values(name) for name in names]
            rows += [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        return [self._entry(row, at, paths[0].name) for at, row in enumerate(rows)]

    def _entry(self, row: Mapping[str, Any], at: int, where: str) -> Entry:
        for field in ("episode_index", "length", "dataset_from_index", "dataset_to_index"):
            if type(row.get(field)) is not int or not 0 <= row[field] < 2**40:
                raise fault(where, field=field, problem=f"is {row.get(field)!r}", remedy="restore meta/", episode=at)
        if row["episode_index"] != at:
            problem = f"is {row['episode_index']}, expected {at}: an episode is missing or out of order"
            raise fault(where, field="episode_index", problem=problem, remedy="restore meta/", episode=at)
        if row["length"] < 1 or row["dataset_to_index"] - row["dataset_from_index"] != row["length"]:
            problem = f"is {row['length']}, the rows run from {row['dataset_from_index']} to {row['dataset_to_index']}"
            raise fault(where, field="length", problem=problem, remedy="restore meta/", episode=at)
        return Entry(row["length"], tuple(str(task) for task in row.get("tasks") or ()), row)


class LeRobotV21(LeRobotReader):
    """LeRobotDataset v2.1: one table and one film per camera for each episode."""

    format: ClassVar[str] = "lerobot_v21"
    version: ClassVar[str] = "v2.1"

    def table_of(self, index: int) -> Path:
        """The table that holds the rows of an episode."""
        return self._fill("data_path", episode_chunk=self._chunk(index), episode_index=index)

    def film_of(self, index: int, key: str) -> tuple[Path, float]:
        """The film of one camera; it begins with the episode."""
        theirs = key if key in self.info["features"] else key.removeprefix(IMAGES)
        path = self._fill("video_path", video_key=theirs, episode_chunk=self._chunk(index), episode_index=index)
        return path, 0.0

    def _chunk(self, index: int) -> int:
        size = self.info.get("chunks_size", 1000)
        if type(size) is not int or size < 1:
            raise fault(INFO, field="chunks_size", problem=f"is {size!r}", remedy="expected a positive number")
        return index // size

    def _read_entries(self) -> list[Entry]:
        path = self.path / "meta/episodes.jsonl"
        try:
            rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
            entries = [Entry(row["length"], tuple(row.get("tasks") or ()), row) for row in rows]
            indices = [row["episode_index"] for row in rows]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise fault(path, field="file", problem=f"is unreadable ({error})", remedy="restore meta/") from error
        if indices != list(range(len(indices))):
            raise fault(path, field="episode_index", problem="must count 0, 1, 2, ...", remedy="restore meta/")
        for at, entry in enumerate(entries):
            if type(entry.length) is not int or not 0 < entry.length < 2**31:
                raise fault(path, field="length", problem=f"is {entry.length!r}", remedy="restore meta/", episode=at)
        return entries


def open_lerobot(path: str | Path) -> LeRobotReader:
    """The reader of whichever version a folder has.

    Raises:
        BadEpisode: If it has another version or is damaged.
    """
    version = read_json(Path(path) / INFO).get("codebase_version")
    if version == LeRobotV21.version:
        return LeRobotV21(path)
    if version != LeRobotV3.version:
        remedy = "update the log with lerobot's own converter to v3.0"
        problem = f"is {version!r}, readable are 'v3.0' and 'v2.1'"
        raise fault(INFO, field="codebase_version", problem=problem, remedy=remedy)
    return LeRobotV3(path)
