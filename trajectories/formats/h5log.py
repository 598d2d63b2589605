"""The common base of the HDF5 layouts: episodes are groups whose datasets have time as their first axis."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.episode import COLUMNS, FRAME_INDEX, IMAGES, TIMESTAMP
from jepa_mpc.trajectories.formats.apart import Answer, Crash, ForkedReader, Send
from jepa_mpc.trajectories.formats.base import LogReader, cameras_in, fault, image_shape
from jepa_mpc.trajectories.formats.h5 import (
    H5Work,
    datasets,
    field_of,
    member_of,
    open_h5,
    read_all_h5,
    read_h5,
    read_rows,
)
from jepa_mpc.trajectories.formats.image_codec import decode_picture, picture_size

NUMBERED = re.compile(r"(.*?)(\d+)")
DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True, kw_only=True)
class H5Episode:
    """The location of one episode.

    Args:
        path: The file.
        group: The group in it; "/" for the whole file.
        length: Observations T.
        start: First row of the datasets, for episodes that share them.
        problem: Why it cannot be read; empty if it can.
    """

    path: Path
    group: str
    length: int
    start: int = 0
    problem: str = ""


def episode_at(path: Path, group: str, length: Callable[[], int]) -> H5Episode:
    """An episode with its number of steps; if counting fails, an episode without steps that carries the error."""
    try:
        counted = length()
        if counted < 1:
            raise fault(path, field=group, problem="has no steps")
        return H5Episode(path=path, group=group, length=counted)
    except BadEpisode as error:
        return H5Episode(path=path, group=group, length=0, problem=str(error))


class H5Log(LogReader):
    """Base of the HDF5 readers; a subclass finds the episodes and names the fields."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._crashed: dict[Path, str] = {}
        self._reader = ForkedReader(self._serve)
        self.files = self._find_files()
        if not self.files:
            raise fault(self.path, field="file", problem="holds no HDF5 file", remedy="name the folder of the log")
        self.episodes = self._find_episodes()
        if not self.episodes:
            raise fault(self.files[0], field="file", problem="holds no episode", remedy="record one first")
        self.damaged |= {index: one.problem for index, one in enumerate(self.episodes) if one.problem}
        self.lengths = [episode.length for episode in self.episodes]
        self.paths_in_group: dict[str, str] = {}
        self.encoded: set[str] = set()
        self.channels_first: set[str] = set()
        self._compared: set[int] = set()
        self._first_names: set[str] = set()
        self.fields = self.first_sound(self._read_fields)
        self.cameras = cameras_in(self.fields)

    def sources(self, index: int) -> tuple[Path, ...]:
        """The file of one episode."""
        return (self.episodes[index].path,)

    def columns(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Steps start..stop-1 of the named fields."""
        request = (int(episode), int(start), int(stop), list(names))
        return dict(self._unless_crashed(self.episodes[episode].path, lambda path: self._reader.ask(path, request))[1])

    def _read_h5(self, path: Path, work: H5Work) -> Answer:
        """`read_h5`, unless the file has crashed before."""
        return self._unless_crashed(path, lambda path: read_h5(path, work))

    def _unless_crashed(self, path: Path, work: Callable[[Path], Answer]) -> Answer:
        """Read a file unless it has crashed before: each of its episodes might take as long again."""
        if path in self._crashed:
            raise BadEpisode(self._crashed[path])
        try:
            return work(path)
        except Crash as error:
            self._crashed[path] = str(error)
            raise

    def _serve(self, request: tuple[int, int, int, list[str]], send: Send) -> None:
        """Send the steps that `columns` asks for."""
        episode, start, stop, names = request
        here = self.episodes[episode]

        def read(file: Any, send: Send) -> None:
            group = member_of(file, here.group, where=here.path, field=here.group)
            if episode not in self._compared:
                self._compare(set(datasets(group, here.path)), here, episode)
                self._compared.add(episode)
            for name in names:
                send(name, self._column(group, here, start, stop, name))

        open_h5(here.path, read, send)

    def _compare(self, found: set[str], here: H5Episode, episode: int) -> None:
        """Refuse an episode whose datasets differ from the first."""
        if found != self._first_names:
            name = min(found ^ self._first_names)
            problem = "is missing" if name in self._first_names else "is not in the first episode"
            full, remedy = f"{here.group.strip('/')}/{name}".strip("/"), "all episodes of a log have the same fields"
            raise fault(here.path, field=full, problem=problem, remedy=remedy, episode=episode)

    @abstractmethod
    def _episodes_of(self, file: Any, path: Path) -> list[H5Episode]:
        """The episodes of one opened file, in order."""

    def _time_step(self, file: Any, path: Path) -> float:
        """Seconds between two steps, 0 if not declared; where the file does not tell, what is known of the log."""
        return self.dt_s

    @abstractmethod
    def _rename(self, dataset: str) -> str | None:
        """The field of a dataset, named relative to its group, or None if it is not a field."""

    def _find_files(self) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        return numbered(p for p in self.path.iterdir() if p.suffix in (".h5", ".hdf5") and not p.name.startswith("."))

    def _find_episodes(self) -> list[H5Episode]:
        """The episodes of all files; an unreadable file among several counts as one damaged episode."""
        refused = {path: error for path in self.files if (error := self._refused(path)) is not None}
        sound = [path for path in self.files if path not in refused]
        answers = read_all_h5([(path, partial(self._describe, path)) for path in sound])
        told: dict[Path, Answer | BadEpisode] = {**refused, **dict(zip(sound, answers, strict=True))}
        found: list[H5Episode] = []
        for path in self.files:
            answer = told[path]
            if not isinstance(answer, BadEpisode):
                self.dt_s = answer[0]["dt_s"]
                found += [H5Episode(path=path, **one) for one in answer[0]["episodes"]]
            elif len(self.files) > 1:
                found.append(H5Episode(path=path, group="/", length=0, problem=str(answer)))
            else:
                raise answer
        return found

    def _refused(self, path: Path) -> BadEpisode | None:
        """Why a file must not be opened, if so."""
        try:
            self.check_file(path)
        except BadEpisode as error:
            return error
        return None

    def _describe(self, path: Path, file: Any, send: Send) -> dict[str, Any]:
        """What `_find_episodes` wants to know of one file."""
        names = [one.name for one in dataclass_fields(H5Episode) if one.name != "path"]
        episodes = self._episodes_of(file, path)
        told = [{name: getattr(episode, name) for name in names} for episode in episodes]
        return {"dt_s": self._time_step(file, path), "episodes": told}

    def _hz(self) -> float | None:
        return 1.0 / self.dt_s if self.dt_s > 0 else None

    def _read_fields(self, index: int) -> dict[str, Field]:
        """Fields of the first intact episode, which all others must match."""
        first = self.episodes[index]
        told = self._read_h5(first.path, partial(self._describe_fields, first))[0]
        self.paths_in_group, self._first_names = told["paths"], set(told["names"])
        self.encoded, self.channels_first = set(told["encoded"]), set(told["channels_first"])
        return {name: Field(**{**one, "shape": tuple(one["shape"])}) for name, one in told["fields"].items()}

    def _describe_fields(self, first: H5Episode, file: Any, send: Send) -> dict[str, Any]:
        """What `_read_fields` wants to know of the first episode."""
        self.paths_in_group, self.encoded, self.channels_first = {}, set(), set()
        fields: dict[str, Field] = {}
        group = member_of(file, first.group, where=first.path, field=first.group)
        found = datasets(group, first.path)
        for name, dataset in sorted(found.items(), key=_in_their_order):
            field = self._rename(name)
            if field is not None and dataset.shape:
                self._check_rows(dataset.shape[0], first, name)
                declared = self._declare(field, dataset, first)
                if declared is not None:
                    final = IMAGES + field.rpartition(".")[2] if declared.unit == "RGB" else field
                    if final in fields:
                        self._set_aside(final, name, fields, first)
                    fields[final] = declared
                    self.paths_in_group[final] = name
                    for marked in (self.encoded, self.channels_first):
                        if field in marked:
                            marked.add(final)
        if not fields:
            raise fault(first.path, field=first.group, problem="holds no dataset with time as first axis", episode=0)
        marks = {"encoded": sorted(self.encoded), "channels_first": sorted(self.channels_first)}
        shown = {name: asdict(field) for name, field in fields.items()}
        return {"fields": shown, "paths": self.paths_in_group, "names": sorted(found), **marks}

    def _set_aside(self, field: str, dataset: str, fields: dict[str, Field], episode: H5Episode) -> None:
        """Two datasets would have one name: the former keeps that of its own."""
        former = self.paths_in_group.pop(field)
        own = former.replace("/", ".")
        if field.startswith(IMAGES) or own in fields:
            problem = f"stands in two datasets, {former} and {dataset}"
            raise fault(episode.path, field=field, problem=problem, remedy="rename or delete one of them", episode=0)
        fields[own], self.paths_in_group[own] = fields.pop(field), former

    def _check_rows(self, rows: int, episode: H5Episode, dataset: str) -> None:
        """Refuse a dataset without one row per step; datasets that span several episodes are longer."""
        if rows < episode.length:
            problem, full = (
                f"has {rows} steps, the episode has {episode.length}",
                f"{episode.group}/{dataset}".strip("/"),
            )
            raise fault(episode.path, field=full, problem=problem, remedy="record it anew", episode=0)

    def _declare(self, name: str, dataset: Any, episode: H5Episode) -> Field | None:
        import h5py

        if h5py.check_vlen_dtype(dataset.dtype) == np.uint8:
            return self._declare_encoded(name, dataset, episode)
        if dataset.dtype.kind not in "fiub":
            return None
        unit = COLUMNS.get(name, ("", 0, 0, ""))[3]
        field = field_of(dataset, where=episode.path, field=name, unit=unit, hz=self._hz())
        if field.dtype == "uint8" and len(field.shape) == 3 and 3 in (field.shape[0], field.shape[2]):
            if field.shape[2] != 3:
                self.channels_first.add(name)
            ordered = field.shape if field.shape[2] == 3 else (*field.shape[1:], 3)
            return Field(image_shape(ordered, where=episode.path, field=name), "uint8", "RGB", self._hz())
        if name == TIMESTAMP:
            return Field((), "float64", "s", self._hz())
        return Field((), "int64", "", self._hz()) if name == FRAME_INDEX else field

    def _declare_encoded(self, name: str, dataset: Any, episode: H5Episode) -> Field | None:
        """Rows of bytes: images, one JPEG or PNG per step."""
        try:
            shape = picture_size(read_rows(dataset, 0, 1, where=episode.path, field=name)[0].tobytes())
        except (OSError, ValueError, IndexError, AttributeError) as error:
            raise fault(episode.path, field=name, problem=f"holds no images ({error})", episode=0) from error
        self.encoded.add(name)
        return Field(image_shape(shape, where=episode.path, field=name), "uint8", "RGB", self._hz())

    def _column(self, group: Any, here: H5Episode, start: int, stop: int, name: str) -> np.ndarray:
        path, field = self.paths_in_group[name], self.fields[name]
        dataset = member_of(group, path, where=here.path, field=f"{here.group}/{path}")
        full = f"{here.group.strip('/')}/{path}".strip("/")
        if name in self.encoded:
            return self._decode(dataset, here, range(here.start + start, here.start + stop), field, full)
        rows = self._rows(dataset, here, here.start + start, here.start + stop, full)
        if name in self.channels_first:
            rows = np.ascontiguousarray(rows.transpose(0, 2, 3, 1))
        if name in (TIMESTAMP, FRAME_INDEX):
            rows = rows.reshape(len(rows)).astype(field.dtype)
        return rows

    def _rows(self, dataset: Any, here: H5Episode, start: int, stop: int, full: str) -> np.ndarray:
        if not here.start and dataset.shape and dataset.shape[0] < here.length:
            problem = f"has {dataset.shape[0]} steps, the episode has {here.length}"
            raise fault(here.path, field=full, problem=problem, remedy="record it anew", episode=self._number(here))
        return read_rows(dataset, start, stop, where=here.path, field=full)

    def _decode(self, dataset: Any, here: H5Episode, steps: range, field: Field, full: str) -> np.ndarray:
        """Decode images one by one, since rows of variable length may all point to the same long one."""
        pictures = np.empty((len(steps), *field.shape), np.uint8)
        for at, step in enumerate(steps):
            row = self._rows(dataset, here, step, step + 1, full)[0]
            try:
                pictures[at] = decode_picture(bytes(row), field.shape)
            except (BadEpisode, OSError, ValueError, TypeError) as error:
                problem = f"holds a damaged image ({error})"
                raise fault(here.path, field=full, problem=problem, episode=self._number(here)) from error
        return pictures

    def _number(self, here: H5Episode) -> int:
        return self.episodes.index(here)


def numbered(things: Iterable[Any]) -> list[Any]:
    """Paths or names in the order of the numbers in them (`demo_10` after `demo_9`)."""

    def key(thing: Any) -> list[tuple[str, int]]:
        parts = DIGITS.split(str(thing))  # text and digits alternate
        return [(text, int(number)) for text, number in zip(parts[::2], parts[1::2], strict=False)] or [
            (str(thing), -1)
        ]

    return sorted(things, key=key)


def _in_their_order(item: tuple[str, Any]) -> tuple[bool, str]:
    """Sort key that puts actions last, in the order of the schema."""
    return item[0].startswith("action"), item[0]
