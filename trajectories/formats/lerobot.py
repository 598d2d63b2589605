"""LeRobotDataset: tables of many episodes (v3.0) or one each (v2.1), and videos or images beside them.

    v3.0  data/chunk-000/file-000.parquet         videos/<key>/chunk-000/file-000.mp4        meta/episodes/chunk-000/...
    v2.1  data/chunk-000/episode_000000.parquet   videos/chunk-000/<key>/episode_000000.mp4  meta/episodes.jsonl

v3.0 records the location of each episode in `meta/episodes`; v2.1 has the episode number in the file names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.plain_json import parse_json_lines
from jepa_mpc.trajectories.episode import EPISODE_INDEX, TASK_INDEX
from jepa_mpc.trajectories.formats.base import fault, read_json
from jepa_mpc.trajectories.formats.lerobot_base import Entry, LeRobotReader
from jepa_mpc.trajectories.formats.lerobot_features import INFO
from jepa_mpc.trajectories.formats.tables import Table
from jepa_mpc.trajectories.guards import plain_file, read_plain


class LeRobotV3(LeRobotReader):
    """LeRobotDataset v3.0: many episodes per table and video."""

    format: ClassVar[str] = "lerobot"
    version: ClassVar[str] = "v3.0"

    def __init__(self, path: str | Path) -> None:
        self._places: dict[int, Path] = {}
        self._holds: dict[Path, frozenset[int]] = {}
        self._moved: list[int] = []
        super().__init__(path)
        self._check_lengths()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was skipped, and the episodes read so far that are not where the log declares them."""
        first = ", ".join(map(str, self._moved[:5])) + (", ..." if len(self._moved) > 5 else "")
        told = f"the rows of {len(self._moved)} episodes ({first}) lie in other tables than meta/episodes names"
        return (*super().remarks, told) if self._moved else super().remarks

    def table_of(self, index: int) -> Path:
        """The table that holds the rows of an episode: the declared one, else any table that has them."""
        if index not in self._places:
            chunk, file = self._numbers(index, "data")
            named = self._fill("data_path", chunk_index=chunk, file_index=file)
            self._places[index] = named if index in self._episodes_in(named) else self._elsewhere(index, named)
        return self._places[index]

    def _check_lengths(self) -> None:
        """Compare lengths with the row counts of the table footers; a damaged table raises only when it is read."""
        for path in self._data_tables():
            try:
                groups = self._table(path).ranges(EPISODE_INDEX)
            except BadEpisode:
                continue
            for (first, last), rows in _rows_of(groups).items():
                counted = sum(self.lengths[first : last + 1])
                if 0 <= first <= last < len(self.lengths) and rows != counted:
                    which = f"episode {first}" if first == last else f"episodes {first} to {last}"
                    problem = f"has {rows} rows of {which}, meta/episodes counts {counted} steps"
                    raise fault(path, field=EPISODE_INDEX, problem=problem, remedy="restore table and meta/")

    def _data_tables(self) -> list[Path]:
        folder = self._fill("data_path", chunk_index=0, file_index=0).parent.parent
        return sorted(folder.glob("*/*.parquet"))

    def _elsewhere(self, index: int, named: Path) -> Path:
        for path in self._data_tables():
            if index in self._episodes_in(path):
                self._moved.append(index)
                return path
        return named

    def _episodes_in(self, path: Path) -> frozenset[int]:
        """The episodes whose rows a table holds; empty if it cannot be read."""
        if path not in self._holds:
            try:
                self._holds[path] = frozenset(np.unique(self._table(path).array(EPISODE_INDEX)).tolist())
            except BadEpisode:
                return frozenset()
        return self._holds[path]

    def film_of(self, index: int, name: str) -> tuple[Path, float]:
        """The video that holds an episode of one field, and the episode's start time in it, s."""
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
    """LeRobotDataset v2.1: one table and one video per camera for each episode."""

    format: ClassVar[str] = "lerobot_v21"
    version: ClassVar[str] = "v2.1"

    def table_of(self, index: int) -> Path:
        """The table that holds the rows of an episode."""
        return self._fill("data_path", episode_chunk=self._chunk(index), episode_index=index)

    def film_of(self, index: int, name: str) -> tuple[Path, float]:
        """The video of one camera; it begins with the episode."""
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
            wrong = next(
                (row for row in rows if type(row[TASK_INDEX]) is not int or type(row["task"]) is not str), None
            )
            if wrong is not None:
                raise ValueError(f"a task is {str(wrong)[:80]}")
            return {row[TASK_INDEX]: row["task"] for row in rows}
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


def open_lerobot(path: str | Path) -> LeRobotReader:
    """The reader for the version of a folder.

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


def _rows_of(groups: list[tuple[int, int, int]]) -> dict[tuple[int, int], int]:
    """Rows of each episode where every row group holds a single one, else of all episodes of a table together."""
    if any(first != last for _, first, last in groups):
        groups = [(sum(rows for rows, _, _ in groups), min(g[1] for g in groups), max(g[2] for g in groups))]
    counted: dict[tuple[int, int], int] = {}
    for rows, first, last in groups:
        counted[first, last] = counted.get((first, last), 0) + rows
    return counted


def _tasks(told: Any, where: str | Path, episode: int) -> tuple[str, ...]:
    """The task texts of an episode: a list of texts, or one."""
    listed = [told] if isinstance(told, str) else told or []
    if not isinstance(listed, list | tuple) or not all(isinstance(task, str) for task in listed):
        remedy = "expected a list of texts"
        raise fault(where, field="tasks", problem=f"is {told!r}", remedy=remedy, episode=episode)
    return tuple(listed)
