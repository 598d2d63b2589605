"""OGBench data sets: one .npz whose arrays concatenate all episodes; `terminals` marks the last step of each.

    visual-cube-single-play-v0.npz  visual-cube-single-play-v0-val.npz      observations, actions, terminals, qpos, ...

The arrays may be compressed and larger than memory: they are read from front to back in pieces.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.episode import ACTION, COLUMNS, IMAGES, STATE
from jepa_mpc.trajectories.formats.base import LogReader, cameras_in, fault, image_shape
from jepa_mpc.trajectories.formats.npz_members import MAX_HEADER, UNREADABLE, BoundedFile, npy_header
from jepa_mpc.trajectories.guards import Patience, check_room

TERMINALS, CAMERA = "terminals", "pixels"
NEEDED = {"observations.npy", "actions.npy", f"{TERMINALS}.npy"}
SKIPPED = (TERMINALS, "next_observations")
KNOWN = {"observations": STATE, "actions": ACTION, "rewards": "reward", "masks": "masks"}
MAX_RATIO = 1100  # deflate cannot shrink further
PIECE = 1 << 20  # steps whose terminals are read at once
SPAN_BYTES = 200  # memory of one episode's Python object


class EpisodeSpan(NamedTuple):
    """The location of one episode: its file, first row and number of rows."""

    file: int
    start: int
    length: int


class OgbenchReader(LogReader):
    """OGBench data sets.

    An image array in the observations is the camera `pixels`, a numeric one is `observation.state`; `qpos` becomes
    `observation.qpos` and so on. The last action of an episode leads to no recorded observation.

    Args:
        path: One .npz file, or a folder of them (the `-val` file follows the other).

    Raises:
        BadEpisode: If a file is damaged, or its arrays differ from the first.
    """

    format: ClassVar[str] = "ogbench"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        found = [self.path] if self.path.is_file() else self.path.glob("*.npz")
        self.files = [_File(self.check_file(file)) for file in sorted(found, key=lambda file: file.stem)]
        if not self.files:
            raise fault(self.path, field="file", problem="holds no OGBench .npz", remedy="name the file")
        self.spans = [EpisodeSpan(at, *cut) for at, file in enumerate(self.files) for cut in file.cuts()]
        self.lengths = [span.length for span in self.spans]
        first = self.files[0]
        self.names = {_house_name(name, array): name for name, array in first.arrays.items() if name not in SKIPPED}
        self.fields = {ours: _declare(ours, first.arrays[theirs], first.path) for ours, theirs in self.names.items()}
        self.cameras = cameras_in(self.fields)
        for file in self.files[1:]:
            _compare(file, first)

    def metadata(self, index: int) -> dict[str, Any]:
        """The file of an episode, and whether it is for training or validation."""
        path = self.files[self.spans[index].file].path
        return {"file": path.name, "split": "validation" if path.stem.endswith("-val") else "train"}

    def sources(self, index: int) -> tuple[Path, ...]:
        """The file of one episode."""
        return (self.files[self.spans[index].file].path,)

    def columns(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Steps start..stop-1 of the named fields."""
        file, first, _ = self.spans[episode]
        arrays = self.files[file].arrays
        return {name: arrays[self.names[name]].rows(first + start, first + stop) for name in names}


def is_ogbench(path: Path) -> bool:
    """Whether a file has the arrays of an OGBench data set."""
    try:
        with BoundedFile(path) as file, zipfile.ZipFile(file) as archive:
            return set(archive.namelist()) >= NEEDED
    except UNREADABLE:
        return False


class _File:
    """The arrays of one file by name, all with the same number of rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            file = BoundedFile(path)
            self.archive = zipfile.ZipFile(file)
            file.most = file.total
        except UNREADABLE as error:
            problem = f"is damaged or no .npz ({error})"
            raise fault(path, field="file", problem=problem, remedy="restore it") from error
        names = self.archive.namelist()
        missing = sorted(NEEDED - set(names)) or ([] if len(set(names)) == len(names) else ["twice the same array"])
        if missing:
            remedy = "expected observations, actions and terminals; a log of ours is read by its folder"
            raise fault(path, field=missing[0].removesuffix(".npy"), problem="is missing", remedy=remedy)
        self.arrays = {
            name.removesuffix(".npy"): _Rows(self.archive, name, path) for name in names if name.endswith(".npy")
        }
        self.length = self.arrays[TERMINALS].shape[0]
        for name, array in self.arrays.items():
            if array.shape[0] != self.length or self.length < 1:
                problem = f"has {array.shape[0]} rows, {TERMINALS} has {self.length}"
                raise fault(path, field=name, problem=problem, remedy="restore the file")

    def cuts(self) -> Iterator[tuple[int, int]]:
        """First row and length of each episode: one ends at every marked step, and at the end of the file."""
        begun, count, patience = 0, 0, Patience(self.path)
        for start in range(0, self.length, PIECE):
            patience.check()
            ends = self._ends(start, min(start + PIECE, self.length))
            count += len(ends)
            check_room(SPAN_BYTES * count, self.path, field=TERMINALS)
            for end in ends.tolist():
                yield begun, end - begun
                begun = end
        if begun < self.length:
            yield begun, self.length - begun

    def _ends(self, start: int, stop: int) -> np.ndarray:
        """The rows after the marked rows of a range."""
        marks = self.arrays[TERMINALS].rows(start, stop)
        if marks.size != stop - start or not np.isin(marks, (0, 1)).all():
            problem = f"must be 0 or 1 for each step, see rows {start}..{stop - 1}"
            raise fault(self.path, field=TERMINALS, problem=problem, remedy="restore the file")
        return np.flatnonzero(marks) + start + 1


class _Rows:
    """One array of a file, read in ranges; consecutive ranges cost a single pass."""

    def __init__(self, archive: zipfile.ZipFile, member: str, path: Path) -> None:
        self.path, self.name, info = path, member.removesuffix(".npy"), archive.getinfo(member)
        if info.file_size > MAX_RATIO * max(info.compress_size, 1) or info.compress_size > path.stat().st_size:
            problem = f"claims {info.file_size} bytes, {info.compress_size} are stored"
            raise fault(path, field=self.name, problem=problem, remedy="restore the file")
        try:
            self._stream = archive.open(member)
            head = self._stream.read(MAX_HEADER)
        except UNREADABLE as error:
            raise self._damaged(error) from error
        self.shape, self.dtype, self._begin = npy_header(head, self.name, where=path.name)
        self._row_bytes = int(np.prod(self.shape[1:], dtype=object)) * self.dtype.itemsize
        if not self.shape or self.shape[0] * self._row_bytes != info.file_size - self._begin:
            problem = f"claims shape {self.shape} but holds {info.file_size - self._begin} bytes"
            raise fault(path, field=self.name, problem=problem, remedy="restore the file")

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop-1.

        Raises:
            BadEpisode: If they are damaged, or exceed the memory limit.
        """
        size = (stop - start) * self._row_bytes
        check_room(size, self.path, field=self.name)
        try:
            self._stream.seek(self._begin + start * self._row_bytes)
            raw = self._stream.read(size)
        except UNREADABLE as error:
            raise self._damaged(error) from error
        if len(raw) != size:
            raise fault(self.path, field=self.name, problem=f"ends before row {stop}", remedy="restore the file")
        return np.frombuffer(raw, self.dtype).reshape(stop - start, *self.shape[1:])

    def _damaged(self, error: BaseException) -> BadEpisode:
        return fault(self.path, field=self.name, problem=f"is damaged ({error})", remedy="restore the file")


def _house_name(name: str, array: _Rows) -> str:
    if array.dtype == np.uint8 and len(array.shape) == 4:
        return IMAGES + (CAMERA if name == "observations" else name)
    return KNOWN.get(name, f"observation.{name}")


def _declare(name: str, array: _Rows, path: Path) -> Field:
    if name.startswith(IMAGES):
        return Field(image_shape(array.shape[1:], where=path, field=array.name), "uint8", "RGB")
    return Field(array.shape[1:], str(array.dtype), COLUMNS.get(name, ("", 0, 0, ""))[3])


def _compare(file: _File, first: _File) -> None:
    """Refuse a file whose arrays differ from the first."""
    kinds, wanted = (
        {name: (array.shape[1:], array.dtype) for name, array in one.arrays.items()} for one in (file, first)
    )
    if kinds != wanted:
        name = min(name for name in kinds | wanted if kinds.get(name) != wanted.get(name))
        problem = f"is {kinds.get(name, 'missing')}, in {first.path.name} it is {wanted.get(name, 'missing')}"
        raise fault(file.path, field=name, problem=problem, remedy="keep files of one kind in a folder")
