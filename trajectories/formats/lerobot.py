"""LeRobotDataset: tables of many episodes (v3.0) or one each (v2.1), and films or pictures beside them.

    v3.0  data/chunk-000/file-000.parquet         videos/<key>/chunk-000/file-000.mp4        meta/episodes/chunk-000/...
    v2.1  data/chunk-000/episode_000000.parquet   videos/chunk-000/<key>/episode_000000.mp4  meta/episodes.jsonl

Nothing is looked up by position alone: the rows of an episode are those that carry its number, and a film's frames
those that are shown at its times.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.trajectories.episode import EPISODE_INDEX, FRAME_INDEX, TASK_INDEX, TIMESTAMP
from jepa_mpc.trajectories.formats.base import LogReader, cameras_in, fault, read_json
from jepa_mpc.trajectories.formats.depth import decode_depth
from jepa_mpc.trajectories.formats.lerobot_features import INFO, Feature, read_features
from jepa_mpc.trajectories.formats.pictures import decode_picture
from jepa_mpc.trajectories.formats.tables import Table
from jepa_mpc.trajectories.formats.videos import VideoFile
from jepa_mpc.trajectories.guards import parse_json_lines, plain_file, read_plain, time_step

ORIGIN = "meta/origin.json"
TEMPLATE = re.compile(
    r"[\w./-]*(\{(chunk_index|file_index|episode_chunk|episode_index|video_key)(:0?\d?d)?\}[\w./-]*)+"
)
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
    lost_steps: ClassVar[float] = 0.02  # times are frame_index / fps; 32 bits of them are exact to that

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.check_file(self.path / INFO)
        self.info = read_json(self.path / INFO)
        if self.info.get("codebase_version") != self.version:
            problem = f"is {self.info.get('codebase_version')!r}, this reader knows {self.version!r}"
            raise fault(INFO, field="codebase_version", problem=problem, remedy="convert the log with lerobot")
        fps = self.info.get("fps")
        self.dt_s = time_step(fps, where=INFO, field="fps")
        if not self.dt_s:
            raise fault(INFO, field="fps", problem=f"is {fps!r}", remedy="expected frames per second")
        self._read_features(1.0 / self.dt_s)
        self.entries = self._read_entries()
        self.lengths = [entry.length for entry in self.entries]
        self._check_totals()
        self._tables: dict[Path, Table] = {}
        self._films: dict[Path, VideoFile] = {}
        self._origin = self._read_origin()
        self._texts = self._read_tasks()
        self._drop_unreadable_depth()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was left out."""
        return tuple(self._left_out)

    def metadata(self, index: int) -> dict[str, Any]:
        """Tasks in the order in which they are done, and robot; of a converted log all that its source said, too."""
        origin = self._origin[index] if index < len(self._origin) else {}
        return {"robot_type": self.info.get("robot_type"), **origin, "tasks": self._tasks(index)}

    def sources(self, index: int) -> tuple[Path, ...]:
        """The table and the films of one episode; those of depth are looked at when it is read."""
        filmed = (name for name, one in self.features.items() if one.kind == "video" and one.depth is None)
        return (self.table_of(index), *dict.fromkeys(self.film_of(index, name)[0] for name in filmed))

    @abstractmethod
    def table_of(self, index: int) -> Path:
        """The table that holds the rows of an episode."""

    @abstractmethod
    def film_of(self, index: int, name: str) -> tuple[Path, float]:
        """The film that holds an episode of one field, and when it begins there, s."""

    @abstractmethod
    def _read_entries(self) -> list[Entry]: ...

    @abstractmethod
    def _read_tasks(self) -> dict[int, str]:
        """The texts that the rows' `task_index` stands for."""

    def _tasks(self, index: int) -> list[str]:
        """What the episode is said to do; several texts, or none, are looked up in its rows."""
        listed = list(self.entries[index].tasks)
        if len(listed) == 1 or TASK_INDEX not in self.fields or not self._texts:
            return listed
        numbers = self.read(index, 0, self.lengths[index], [TASK_INDEX])[TASK_INDEX]
        order = dict.fromkeys(int(number) for number in numbers)
        return [self._texts[number] for number in order] if order.keys() <= self._texts.keys() else listed

    def columns(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Steps start..stop-1 of the named fields."""
        table = self._table(self.table_of(episode))
        first = self._first_row(table, episode)
        return {name: self._column(table, first, episode, start, stop, name) for name in names}

    def _column(self, table: Table, first: int, episode: int, start: int, stop: int, name: str) -> np.ndarray:
        feature = self.features[name]
        kind, field, theirs = feature.kind, feature.field, feature.key
        if kind == "video":
            return self._frames(episode, start, stop, name)
        if kind == "image":
            cells = table.values(theirs, start=first + start, stop=first + stop)
            return np.stack([self._picture(cell, feature, episode) for cell in cells])
        rows = table.array(theirs, start=first + start, stop=first + stop)
        if rows.ndim == 1 and field.shape == (1,):  # lists of one number are stored as the number
            rows = rows[:, None]
        if str(rows.dtype) not in ({kind, "float64"} if name == TIMESTAMP else {kind}):
            problem, where = f"has dtype {rows.dtype}, {INFO} declares {kind}", self.where(episode)
            raise fault(where, field=theirs, problem=problem, remedy="restore the table", episode=episode)
        return rows.astype(np.float64) if name == TIMESTAMP else rows

    def _frames(self, episode: int, start: int, stop: int, name: str) -> np.ndarray:
        begins_s, film, depth = self.film_of(episode, name)[1], self._film(episode, name), self.features[name].depth
        where = f"{film.path.parent.name}/{film.path.name}"
        if film.size != self.fields[name].shape[:2]:
            problem = f"has pictures of {film.size}, {INFO} declares {self.fields[name].shape[:2]}"
            raise fault(where, field=name, problem=problem, remedy="restore the film", episode=episode)
        first, length = film.number_at(begins_s), self.lengths[episode]
        times = film.times_s[first : first + length]
        wanted = begins_s + np.arange(length) * self.dt_s
        if len(times) < length or np.abs(times - wanted).max() > 0.5 * self.dt_s:
            problem = f"does not show {length} frames from {begins_s:.3f} s on, {self.dt_s:.4f} s apart"
            raise fault(where, field=name, problem=problem, remedy="restore film or table", episode=episode)
        if depth is not None:
            return depth.codes.decode(film.read_grey(first + start, first + stop))
        return film.read(first + start, first + stop)

    def _film(self, episode: int, name: str) -> VideoFile:
        path = self.film_of(episode, name)[0]
        if path not in self._films:
            self._films[path] = VideoFile(self.check_file(path))
        return self._films[path]

    def _picture(self, cell: Any, feature: Feature, episode: int) -> np.ndarray:
        """Decode one PNG, JPEG or TIFF cell."""
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        try:
            if data is None and isinstance(cell, dict) and cell.get("path"):
                data = read_plain(self.path / str(cell["path"]), self.path, field="path")
            if feature.depth is not None:
                return decode_depth(data, feature.field.shape, unit=feature.depth.unit)
            return decode_picture(data, feature.field.shape)
        except BadEpisode as error:
            problem, where = f"holds a damaged picture ({error})", self.where(episode)
            raise fault(where, field=feature.key, problem=problem, episode=episode) from error

    def _table(self, path: Path) -> Table:
        if path not in self._tables:
            while len(self._tables) >= KEPT_TABLES:
                self._tables.pop(next(iter(self._tables)))
            self.check_file(path)
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
        self.features, self._left_out = read_features(self.info, fps=fps)
        self._publish_fields()
        missing = [name for name in (TIMESTAMP, FRAME_INDEX, EPISODE_INDEX) if name not in self.fields]
        if missing:
            raise fault(INFO, field=missing[0], problem="is missing among the features", remedy="restore the file")

    def _publish_fields(self) -> None:
        self.fields = {name: feature.field for name, feature in self.features.items()}
        self.cameras = cameras_in(self.fields)

    def _drop_unreadable_depth(self) -> None:
        """Leave out depth films that are not there or not of grey; colours do not wait for them."""
        for name in [n for n, feature in self.features.items() if feature.depth and feature.kind == "video"]:
            try:
                self._film(0, name).read_grey(0, 1)
            except BadEpisode as error:
                self._left_out.append(f"{self.features.pop(name).key}: its depth is left out ({error})")
        self._publish_fields()

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
        added = isinstance(listed, list) and len(listed) < len(self.lengths)  # by lerobot, behind those that we wrote
        if (
            not isinstance(listed, list)
            or not all(map(_is_object, listed))
            or not (added or len(listed) == len(self.lengths))
        ):
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
        if relative.startswith("/") or ".." in Path(relative).parts:
            raise fault(INFO, field=field, problem=f"leads out of the log: {relative}", remedy="restore the file")
        return self.path / relative


class LeRobotV3(LeRobotReader):
    """LeRobotDataset v3.0: many episodes per table and film."""

    format: ClassVar[str] = "lerobot"
    version: ClassVar[str] = "v3.0"

    def __init__(self, path: str | Path) -> None:
        self._places: dict[int, Path] = {}
        self._holds: dict[Path, frozenset[int]] = {}
        self._moved: list[int] = []
        super().__init__(path)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was left out, and the episodes so far that do not lie where the log says."""
        first = ", ".join(map(str, self._moved[:5])) + (", ..." if len(self._moved) > 5 else "")
        told = f"the rows of {len(self._moved)} episodes ({first}) lie in other tables than meta/episodes names"
        return (*super().remarks, told) if self._moved else super().remarks

    def table_of(self, index: int) -> Path:
        """The table that holds the rows of an episode: the one that the log names, or else any that has them."""
        if index not in self._places:
            chunk, file = self._numbers(index, "data")
            named = self._fill("data_path", chunk_index=chunk, file_index=file)
            self._places[index] = named if index in self._episodes_in(named) else self._elsewhere(index, named)
        return self._places[index]

    def _elsewhere(self, index: int, named: Path) -> Path:
        for path in sorted(named.parent.parent.glob("*/*.parquet")):
            if index in self._episodes_in(path):
                self._moved.append(index)
                return path
        return named

    def _episodes_in(self, path: Path) -> frozenset[int]:
        """The episodes whose rows a table holds; none if it is no such table."""
        if path not in self._holds:
            try:
                self._holds[path] = frozenset(np.unique(self._table(path).array(EPISODE_INDEX)).tolist())
            except BadEpisode:
                return frozenset()
        return self._holds[path]

    def film_of(self, index: int, name: str) -> tuple[Path, float]:
        """The film that holds an episode of one field, and when it begins there, s."""
        theirs = self.features[name].key
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

    def _read_tasks(self) -> dict[int, str]:
        path = self.path / "meta/tasks.parquet"
        if not path.exists():
            return {}
        self.check_file(path)
        table = Table(path)
        text = next((name for name in ("task", "__index_level_0__") if name in table.columns), "task")
        return dict(zip(table.array(TASK_INDEX).tolist(), map(str, table.values(text)), strict=True))

    def _read_entries(self) -> list[Entry]:
        paths = sorted((self.path / "meta/episodes").glob("chunk-*/file-*.parquet"))
        if not paths:
            raise fault("meta/episodes", field="file", problem="holds no table", remedy="restore meta/ as a whole")
        rows: list[dict[str, Any]] = []
        for path in paths:
            self.check_file(path)
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
        return Entry(row["length"], _tasks(row.get("tasks"), where, at), row)


class LeRobotV21(LeRobotReader):
    """LeRobotDataset v2.1: one table and one film per camera for each episode."""

    format: ClassVar[str] = "lerobot_v21"
    version: ClassVar[str] = "v2.1"

    def table_of(self, index: int) -> Path:
        """The table that holds the rows of an episode."""
        return self._fill("data_path", episode_chunk=self._chunk(index), episode_index=index)

    def film_of(self, index: int, name: str) -> tuple[Path, float]:
        """The film of one camera; it begins with the episode."""
        theirs = self.features[name].key
        path = self._fill("video_path", video_key=theirs, episode_chunk=self._chunk(index), episode_index=index)
        return path, 0.0

    def _chunk(self, index: int) -> int:
        size = self.info.get("chunks_size", 1000)
        if type(size) is not int or size < 1:
            raise fault(INFO, field="chunks_size", problem=f"is {size!r}", remedy="expected a positive number")
        return index // size

    def _read_tasks(self) -> dict[int, str]:
        path = self.path / "meta/tasks.jsonl"
        if not path.exists():
            return {}
        try:
            rows = parse_json_lines(read_plain(self.check_file(path), self.path))
            return {int(row[TASK_INDEX]): str(row["task"]) for row in rows}
        except BadEpisode:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise fault(path, field="file", problem=f"is unreadable ({error})", remedy="restore meta/") from error

    def _read_entries(self) -> list[Entry]:
        path = self.path / "meta/episodes.jsonl"
        try:
            rows = parse_json_lines(read_plain(self.check_file(path), self.path))
            entries = [Entry(row["length"], _tasks(row.get("tasks"), path, at), row) for at, row in enumerate(rows)]
            indices = [row["episode_index"] for row in rows]
        except BadEpisode:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise fault(path, field="file", problem=f"is unreadable ({error})", remedy="restore meta/") from error
        if indices != list(range(len(indices))):
            raise fault(path, field="episode_index", problem="must count 0, 1, 2, ...", remedy="restore meta/")
        for at, entry in enumerate(entries):
            if type(entry.length) is not int or not 0 < entry.length < 2**31:
                raise fault(path, field="length", problem=f"is {entry.length!r}", remedy="restore meta/", episode=at)
        return entries


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _tasks(told: Any, where: str | Path, episode: int) -> tuple[str, ...]:
    """What an episode is about: a list of texts, or one."""
    listed = [told] if isinstance(told, str) else told or []
    if not isinstance(listed, list | tuple) or not all(isinstance(task, str) for task in listed):
        remedy = "expected a list of texts"
        raise fault(where, field="tasks", problem=f"is {told!r}", remedy=remedy, episode=episode)
    return tuple(listed)


def open_lerobot(path: str | Path) -> LeRobotReader:
    """The reader of whichever version a folder has.

    Raises:
        BadEpisode: If it has another version or is damaged.
    """
    version = read_json(plain_file(Path(path) / INFO, Path(path))).get("codebase_version")
    if version == LeRobotV21.version:
        return LeRobotV21(path)
    if version != LeRobotV3.version:
        remedy = "update the log with lerobot's own converter to v3.0"
        problem = f"is {version!r}, readable are 'v3.0' and 'v2.1'"
        raise fault(INFO, field="codebase_version", problem=problem, remedy=remedy)
    return LeRobotV3(path)
