"""Folders of videos with a table beside them, for recordings of a robot without a dedicated log format.

    episode_0/{table.csv, left.mp4, wrist.mp4}          a folder per episode, or
    episode_0.csv  episode_0_left.mp4  episode_0.mp4    files with a common prefix

Tables are .csv with a header line, or .parquet. Columns `state_0, state_1` (or `state.0`, `state[0]`) form one vector.
A video has one frame per row.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, TextIO

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.episode import ACTION, COLUMNS, DONE, FRAME_INDEX, IMAGES, STATE, TIMESTAMP
from jepa_mpc.trajectories.formats.base import LogReader, cameras_in, fault
from jepa_mpc.trajectories.formats.h5log import numbered
from jepa_mpc.trajectories.formats.tables import Table
from jepa_mpc.trajectories.formats.videos import VideoFile
from jepa_mpc.trajectories.guards import check_room, plain_file, time_step

VECTOR = re.compile(r"(.+?)[._\[](\d{1,5})\]?")
KNOWN = {"actions": ACTION, "state": STATE, "time": TIMESTAMP, "time_s": TIMESTAMP, "t": TIMESTAMP, "done": DONE}
FILM_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm")
MAX_LINE = 1 << 20
LARGEST = 1 << 53  # whole number that a float64 tells from its neighbours


class FilmsReader(LogReader):
    """Videos and tables.

    Args:
        path: The folder.

    Raises:
        BadEpisode: If a table has no video, row and frame counts differ, or an episode's columns or cameras differ from
            the
            first.
    """

    format: ClassVar[str] = "films"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.tables = find_tables(self.path)
        if not self.tables:
            raise fault(self.path, field="file", problem="holds no .csv or .parquet", remedy="see docs/logs.md")
        self.films = [films_beside(table) for table in self.tables]
        self._rows: dict[Path, dict[str, np.ndarray]] = {}
        self._open: dict[Path, VideoFile] = {}
        self.lengths = self.count_steps(len(self.tables), self._length)
        self.fields = self.first_sound(self._read_fields)
        self.cameras = cameras_in(self.fields)

    def sources(self, index: int) -> tuple[Path, ...]:
        """Table and videos of one episode."""
        return (self.tables[index], *self.films[index].values())

    def columns(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Steps start..stop-1 of the named fields."""
        rows, found = self._table(episode), {}
        other = {*rows, *(IMAGES + camera for camera in self.films[episode])} ^ set(self.fields)
        if other:
            name = min(other)
            problem = "is missing" if name in self.fields else "is not in the first episode"
            remedy = "all episodes of a log have the same columns and videos"
            raise fault(self.tables[episode], field=name, problem=problem, remedy=remedy, episode=episode)
        for name in names:
            if name.startswith(IMAGES):
                found[name] = self._frames(episode, start, stop, name)
            else:
                found[name] = rows[name][start:stop]
        return found

    def _read_fields(self, index: int) -> dict[str, Field]:
        """Fields of the first intact episode, which all others must match."""
        rows, films = self._table(index), {camera: self._film(path) for camera, path in self.films[index].items()}
        self.dt_s = _time_step(rows, next(iter(films.values())).fps if films else 0.0, self.tables[index])
        hz = 1.0 / self.dt_s if self.dt_s > 0 else None
        pictures = {IMAGES + camera: Field((*film.size, 3), "uint8", "RGB", hz) for camera, film in films.items()}
        return pictures | {
            name: Field(column.shape[1:], str(column.dtype), _unit(name), hz) for name, column in rows.items()
        }

    def _frames(self, episode: int, start: int, stop: int, name: str) -> np.ndarray:
        path = self.films[episode][name.removeprefix(IMAGES)]
        film = self._film(path)
        if len(film) != self.lengths[episode]:
            problem = f"has {len(film)} frames, {self.tables[episode].name} has {self.lengths[episode]} rows"
            raise fault(path, field=name, problem=problem, remedy="one frame belongs to one row", episode=episode)
        return film.read(start, stop)

    def _film(self, path: Path) -> VideoFile:
        if path not in self._open:
            while len(self._open) > 8:
                self._open.pop(next(iter(self._open)))
            self.check_file(path)
            self._open[path] = VideoFile(path)
        return self._open[path]

    def _table(self, episode: int) -> dict[str, np.ndarray]:
        path = self.tables[episode]
        if path not in self._rows:
            while len(self._rows) > 16:
                self._rows.pop(next(iter(self._rows)))
            self.check_file(path)
            self._rows[path] = read_table(path)
        return self._rows[path]

    def _length(self, episode: int) -> int:
        length = len(next(iter(self._table(episode).values())))
        if length < 1:
            raise fault(self.tables[episode], field="file", problem="has no rows", episode=episode)
        return length


def find_tables(path: Path) -> list[Path]:
    """The tables of a folder or of its subfolders, in the order of the numbers in their names."""

    def inside(folder: Path) -> list[Path]:
        found = [p for p in folder.iterdir() if p.suffix in (".csv", ".parquet") and not p.name.startswith(".")]
        return numbered(found)

    here = inside(path)
    if here:
        return [table for table in here if films_beside(table)] or here
    folders = numbered(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    return [table for folder in folders for table in inside(folder)[:1] if films_beside(table)]


def films_beside(table: Path) -> dict[str, Path]:
    """Camera name -> video: those named after the table, or all of the folder if this is its only table."""
    films = sorted(p for p in table.parent.iterdir() if p.suffix in FILM_SUFFIXES and not p.name.startswith("."))
    stem = table.stem
    own = {
        film.stem[len(stem) :].strip("_.-") or "camera": film
        for film in films
        if film.stem == stem or (film.stem.startswith(stem) and film.stem[len(stem)] in "_.-")
    }
    alone = sum(p.suffix in (".csv", ".parquet") for p in table.parent.iterdir()) == 1
    return own or ({film.stem: film for film in films} if alone else {})


def read_table(path: Path) -> dict[str, np.ndarray]:
    """The columns of a table by field name; numbered columns are stacked into a vector.

    Raises:
        BadEpisode: If it is not a table of numbers.
    """
    if path.suffix == ".parquet":
        table = Table(path)
        table.check_room(table.columns)
        columns = {name: table.array(name) for name in table.columns}
    else:
        columns = _read_csv(path)
    grouped: dict[str, dict[int, np.ndarray]] = {}
    found: dict[str, np.ndarray] = {}
    for name, column in columns.items():
        match = VECTOR.fullmatch(name)
        field, axis = (_house_name(match[1]), int(match[2])) if match and column.ndim == 1 else (_house_name(name), -1)
        axes = grouped.setdefault(field, {})
        if axis in axes or (axes and -1 in (axis, *axes)):
            raise fault(path, field=field, problem="stands in two columns", remedy="keep one of them")
        axes[axis] = column
    for name, axes in sorted(grouped.items(), key=lambda item: -1 not in item[1]):  # vectors come last
        found[name] = _house_dtype(name, axes[-1] if -1 in axes else _side_by_side(name, axes, path), path)
    return found


def _side_by_side(name: str, axes: dict[int, np.ndarray], path: Path) -> np.ndarray:
    if sorted(axes) != list(range(len(axes))):
        raise fault(path, field=name, problem=f"has the axes {sorted(axes)}", remedy="count them 0, 1, 2, ...")
    kinds = {str(column.dtype) for column in axes.values()}
    if len(kinds) > 1:
        raise fault(path, field=name, problem=f"has axes of different dtypes {sorted(kinds)}", remedy="use float32")
    return np.stack([axes[axis] for axis in range(len(axes))], axis=1)


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    """The columns of a text table, parsed line by line into preallocated arrays."""
    plain_file(path, path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(_lines(file, path))
            header = [name.strip() for name in next(rows, [])]
            if len(set(header)) != len(header) or not header:
                raise fault(path, field="header", problem="has no or equal names", remedy="name each column once")
            lines = max(_count(path, b"\n"), _count(path, b"\r"))
            check_room(8 * (lines + 1) * len(header), path, field="file")
            cells, count = np.empty((lines + 1, len(header))), 0
            for number, line in enumerate(rows):
                if len(line) != len(header) or number >= len(cells):
                    problem = f"has {len(line)} cells in row {number}, the header has {len(header)}"
                    raise fault(path, field="file", problem=problem, remedy="restore the table")
                cells[number] = [_number(cell) for cell in line]
                count += 1
    except UnicodeDecodeError as error:
        raise fault(path, field="file", problem=f"is no text ({error})", remedy="restore the table") from error
    except (csv.Error, OSError) as error:
        raise fault(path, field="file", problem=f"is unreadable ({error})", remedy="restore the table") from error
    except ValueError as error:
        if isinstance(error, BadEpisode):
            raise
        problem = f"holds what is no number ({error})"
        raise fault(path, field="file", problem=problem, remedy="drop that column") from error
    return {name: cells[:count, column] for column, name in enumerate(header)}


def _count(path: Path, mark: bytes) -> int:
    with path.open("rb") as file:
        return sum(piece.count(mark) for piece in iter(lambda: file.read(MAX_LINE), b""))


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise fault(path, field="file", problem=f"has a line of {MAX_LINE} characters", remedy="restore the table")
        yield line


def _number(cell: str) -> float:
    text = cell.strip().lower()
    if "_" in text or not text.isascii():  # Python would read 1_000 and digits of all scripts
        raise ValueError(f"could not read {cell!r}")
    return {"true": 1.0, "false": 0.0}[text] if text in ("true", "false") else float(text)


def _house_name(name: str) -> str:
    return KNOWN.get(name, name)


def _house_dtype(name: str, column: np.ndarray, path: Path) -> np.ndarray:
    if COLUMNS.get(name, ("",))[0].startswith("float") and str(column.dtype) not in ("float32", "float64"):
        remedy = "use float32 or float64: the rest has lost digits"
        raise fault(path, field=name, problem=f"has dtype {column.dtype}", remedy=remedy)
    if column.dtype.kind == "f" and np.isfinite(column).all():
        _check_whole(name, column, path)
    if name in COLUMNS and name != TIMESTAMP and column.dtype.kind in "fiub":
        return column.astype(COLUMNS[name][0]) if np.isfinite(column).all() else column
    if name in (TIMESTAMP, FRAME_INDEX):
        return column.astype(COLUMNS[name][0])
    return column.astype(np.float32) if column.dtype == np.float64 else column


def _check_whole(name: str, column: np.ndarray, path: Path) -> None:
    """Counters are whole numbers, marks 0 or 1."""
    kind = np.dtype(COLUMNS[name][0]).kind if name in COLUMNS else "f"
    whole = (column == np.rint(column)) & (np.abs(column) < LARGEST)
    if (kind == "i" and not whole.all()) or (kind == "b" and not np.isin(column, (0, 1)).all()):
        expected = "0 or 1" if kind == "b" else "whole numbers"
        raise fault(path, field=name, problem="holds other numbers", remedy=f"expected {expected}")


def _unit(name: str) -> str:
    return COLUMNS[name][3] if name in COLUMNS else ""


def _time_step(rows: dict[str, np.ndarray], fps: float, path: Path) -> float:
    """Seconds between two rows: from the times, else from the video's rate."""
    times = rows.get(TIMESTAMP)
    if times is not None and len(times) > 1 and np.isfinite(times).all() and np.median(np.diff(times)) > 0:
        return time_step(float(np.median(np.diff(times))), where=path, field=TIMESTAMP, rate=False)
    return time_step(fps, where=path, field="fps")
