"""The common base of the readers of LeRobotDataset v3.0 and v2.1; `lerobot.py` describes their layouts.

Nothing is looked up by position alone: the rows of an episode are those with its number, and the video frames those
at its timestamps.
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
from jepa_mpc.trajectories.formats.image_codec import decode_picture
from jepa_mpc.trajectories.formats.lerobot_features import INFO, Feature, read_features
from jepa_mpc.trajectories.formats.tables import Table
from jepa_mpc.trajectories.formats.videos import VideoFile
from jepa_mpc.trajectories.guards import read_plain, time_step

ORIGIN = "meta/origin.json"
TEMPLATE = re.compile(
    r"[\w./-]*(\{(chunk_index|file_index|episode_chunk|episode_index|video_key)(:0?\d?d)?\}[\w./-]*)+"
)
KEPT_TABLES = 4


class Entry(NamedTuple):
    """One episode: its number of steps, its declared metadata, and its row in the tables of episodes."""

    length: int
    tasks: tuple[str, ...]
    places: Mapping[str, Any]


class LeRobotReader(LogReader):
    """The common part of both versions; a subclass locates the rows and videos of an episode.

    Args:
        path: The folder that holds `meta/info.json`.

    Raises:
        BadEpisode: If a header is damaged or counts, lengths and features contradict each other.
    """

    version: ClassVar[str]
    lost_steps: ClassVar[float] = 0.02  # times are frame_index / fps; float32 is exact to that

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
        """What was skipped."""
        return tuple(self._left_out)

    def metadata(self, index: int) -> dict[str, Any]:
        """Tasks in the order in which they are done, and robot; for a converted log also the source's metadata."""
        origin = self._origin[index] if index < len(self._origin) else {}
        return {"robot_type": self.info.get("robot_type"), **origin, "tasks": self._tasks(index)}

    def sources(self, index: int) -> tuple[Path, ...]:
        """The table and the videos of one episode; depth videos are checked when they are read."""
        filmed = (name for name, one in self.features.items() if one.kind == "video" and one.depth is None)
        return (self.table_of(index), *dict.fromkeys(self.film_of(index, name)[0] for name in filmed))

    @abstractmethod
    def table_of(self, index: int) -> Path:
        """The table that holds the rows of an episode."""

    @abstractmethod
    def film_of(self, index: int, name: str) -> tuple[Path, float]:
        """The video that holds an episode of one field, and the episode's start time in it, s."""

    @abstractmethod
    def _read_entries(self) -> list[Entry]: ...

    @abstractmethod
    def _read_tasks(self) -> dict[int, str]:
        """The task text of each `task_index`."""

    def _tasks(self, index: int) -> list[str]:
        """The declared task of the episode; several texts, or none, are looked up in its rows."""
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
            problem = f"has images of {film.size}, {INFO} declares {self.fields[name].shape[:2]}"
            raise fault(where, field=name, problem=problem, remedy="restore the video", episode=episode)
        first, length = film.number_at(begins_s), self.lengths[episode]
        times = film.times_s[first : first + length]
        wanted = begins_s + np.arange(length) * self.dt_s
        if len(times) < length or np.abs(times - wanted).max() > 0.5 * self.dt_s:
            problem = f"does not show {length} frames from {begins_s:.3f} s on, {self.dt_s:.4f} s apart"
            raise fault(where, field=name, problem=problem, remedy="restore video or table", episode=episode)
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
            problem, where = f"holds a damaged image ({error})", self.where(episode)
            raise fault(where, field=feature.key, problem=problem, episode=episode) from error

    def _table(self, path: Path) -> Table:
        if path not in self._tables:
            while len(self._tables) >= KEPT_TABLES:
                self._tables.pop(next(iter(self._tables)))
            self.check_file(path)
            self._tables[path] = Table(path)
        return self._tables[path]

    def _first_row(self, table: Table, episode: int) -> int:
        """First row of the episode in its table; its rows must be contiguous, in order and complete."""
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
        """Drop depth that is missing or not a greyscale video; colour images stay readable."""
        for name in [n for n, feature in self.features.items() if feature.depth]:
            try:
                self._check_depth(name)
            except BadEpisode as error:
                self._left_out.append(f"{self.features.pop(name).key}: its depth is left out ({error})")
        self._publish_fields()

    def _check_depth(self, name: str) -> None:
        feature = self.features[name]
        if feature.kind == "video":
            self._film(0, name).read_grey(0, 1)
        elif feature.key not in self._table(self.table_of(0)).columns:
            raise fault(self.table_of(0), field=feature.key, problem="is missing")

    def _check_totals(self) -> None:
        for field, counted in (("total_episodes", len(self.lengths)), ("total_frames", sum(self.lengths))):
            if self.info.get(field) != counted:
                problem = f"is {self.info.get(field)!r}, the tables of episodes count {counted}"
                raise fault(INFO, field=field, problem=problem, remedy="restore meta/ as a whole")
        if not self.lengths:
            raise fault(INFO, field="total_episodes", problem="is 0", remedy="record an episode first")

    def _read_origin(self) -> list[dict[str, Any]]:
        """The source's metadata of the episodes of a converted log; episodes that lerobot appended have none."""
        if not (self.path / ORIGIN).exists():
            return []
        listed = read_json(self.path / ORIGIN).get("episodes")
        if not isinstance(listed, list) or not all(map(_is_object, listed)) or len(listed) > len(self.lengths):
            raise fault(ORIGIN, field="episodes", problem="does not list every episode", remedy="delete or restore it")
        return [dict(entry) for entry in listed]

    def _fill(self, template: str, **values: Any) -> Path:
        """A path from one of the templates in info.json, checked to be inside the log."""
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


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)
