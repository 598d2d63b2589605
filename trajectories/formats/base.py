"""The common base of all log readers: bounds and value checks, checksums, and errors with file, episode and field."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.interfaces import EpisodeStore, Field
from jepa_mpc.plain_json import parse_json
from jepa_mpc.trajectories.checksums import Checksums
from jepa_mpc.trajectories.episode import FRAME_INDEX, IMAGES, TIMESTAMP
from jepa_mpc.trajectories.guards import fault as fault
from jepa_mpc.trajectories.guards import plain_file, read_plain

MAX_SIDE = 8192  # px; a larger image means a damaged header
MAX_JSON = 64 << 20
BLOCK_BYTES = 32 << 20  # of an episode that are in memory at a time while it is written
PACE = 0.2  # share by which the usual step may differ from the declared one
FEW = 8  # steps whose median says nothing yet

Made = TypeVar("Made")


class Log(EpisodeStore, Protocol):
    """An EpisodeStore that also knows its source; the interface of every reader.

    `format` names the layout, `path` the folder or file, `cameras` the cameras in stacking order, `dt_s` the seconds
    between
    two steps (0 if the log does not declare it). `damaged` maps the unreadable episodes to the reason: they have no
    steps, and reading them raises.
    """

    format: ClassVar[str]
    path: Path
    cameras: tuple[str, ...]
    dt_s: float
    damaged: dict[int, str]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the reader skipped or found at another path than declared, one sentence each."""

    def metadata(self, index: int) -> dict[str, Any]:
        """The log's metadata of one episode, JSON values."""

    def sources(self, index: int) -> tuple[Path, ...]:
        """The files that one episode is read from."""


class LogReader(ABC):
    """Base of the readers: subclasses fill `lengths`, `fields`, `cameras`, `dt_s` and implement `columns`.

    Args:
        path: Folder or file of the log.

    Raises:
        BadEpisode: If the path does not exist.
    """

    format: ClassVar[str]
    lost_steps: ClassVar[float] = 4.0  # allowed gap between two rows, in steps
    lengths: Sequence[int]
    fields: Mapping[str, Field]
    cameras: tuple[str, ...]
    dt_s: float = 0.0

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the reader skipped or found at another path than declared, one sentence each."""
        return ()

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise fault(str(path), field="file", problem="does not exist", remedy="name an existing log")
        self.checksums = Checksums(self.path)
        self.damaged: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Steps start..stop-1 of the named fields, checked.

        Raises:
            BadEpisode: If a file is damaged, a field is missing or values contradict its declaration.
            IndexError: If there is no such episode, or the range is empty or exceeds it.
        """
        if not 0 <= episode < len(self.lengths):
            raise IndexError(f"episode {episode} of a log with {len(self.lengths)}")
        check_sound(self.damaged, episode)
        if not 0 <= start < stop <= self.lengths[episode]:
            raise IndexError(f"steps {start}..{stop} are not inside episode {episode} of {self.lengths[episode]} steps")
        where = self.where(episode)
        for name in names:
            if name not in self.fields:
                known = ", ".join(self.fields)
                raise fault(where, field=name, problem="is not in this log", remedy=f"it has {known}", episode=episode)
        for path in self.sources(episode):
            self.check_file(path)
        columns = self.columns(episode, start, stop, names)
        for name in names:
            check_values(name, columns[name], self.fields[name], steps=stop - start, where=where, episode=episode)
        if TIMESTAMP in columns:
            check_pace(columns[TIMESTAMP], self.dt_s, lost_steps=self.lost_steps, where=where, episode=episode)
        return {name: columns[name] for name in names}

    def metadata(self, index: int) -> dict[str, Any]:
        """The log's metadata of one episode, JSON values."""
        return {}

    def where(self, index: int) -> str:
        """The file name that error messages about an episode show."""
        return self.sources(index)[0].name

    def check_file(self, path: Path) -> Path:
        """A file of the log, checked to be a plain file and to match its checksum.

        Raises:
            BadEpisode: If it is missing, a link, a pipe, outside of the log, or altered.
        """
        plain_file(path, self.path)
        self.checksums.check(path)
        return path

    def count_steps(self, episodes: int, length: Callable[[int], int]) -> list[int]:
        """Steps of each episode; an unreadable episode is recorded as damaged and has none.

        Raises:
            BadEpisode: If all are damaged.
        """
        counted = [self.unless_damaged(index, length) or 0 for index in range(episodes)]
        if episodes and len(self.damaged) == episodes:
            raise BadEpisode(self.damaged[0])
        return counted

    def unless_damaged(self, index: int, work: Callable[[int], Made]) -> Made | None:
        """The result of `work` on one episode, or None if the episode is damaged, which is recorded."""
        if index in self.damaged:
            return None
        try:
            return work(index)
        except BadEpisode as error:
            self.damaged[index] = str(error)
            return None

    def first_sound(self, work: Callable[[int], Made]) -> Made:
        """The result of `work` on the first intact episode, which all others must match.

        Raises:
            BadEpisode: If all are damaged.
        """
        assert isinstance(self.lengths, list)
        for index in range(len(self.lengths)):
            found = self.unless_damaged(index, work)
            if found is not None:
                return found
            self.lengths[index] = 0
        raise BadEpisode(self.damaged[0])

    @abstractmethod
    def columns(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The requested steps as stored; bounds and names are already checked."""

    @abstractmethod
    def sources(self, index: int) -> tuple[Path, ...]:
        """The files that one episode is read from."""


def check_values(name: str, array: np.ndarray, field: Field, *, steps: int, where: str, episode: int) -> None:
    """Check dtype, shape, finiteness and order of one column against its declaration.

    Raises:
        BadEpisode: If anything differs.
    """

    def bad(problem: str, remedy: str = "record it again or leave the episode out") -> BadEpisode:
        return fault(where, field=name, problem=problem, remedy=remedy, episode=episode)

    if str(array.dtype) != field.dtype:
        raise bad(f"has dtype {array.dtype}, the log declares {field.dtype}")
    if array.shape != (steps, *field.shape):
        raise bad(f"has shape {array.shape}, the log declares {(steps, *field.shape)}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise bad(f"is not finite at step {int(np.argwhere(~np.isfinite(array))[0][0])} of those read")
    if name == TIMESTAMP and not (np.diff(array) > 0).all():
        raise bad(f"does not rise at step {int(np.argmax(np.diff(array) <= 0)) + 1} of those read")
    if name == FRAME_INDEX and not (np.diff(array) == 1).all():
        raise bad("does not count up by one")


def check_sound(damaged: Mapping[int, str], episode: int) -> None:
    """Refuse a damaged episode.

    Raises:
        BadEpisode: With the fault and how to leave the episode out.
    """
    if episode in damaged:
        raise BadEpisode(f"{damaged[episode]} (episode {episode}; ingest with leave_out=[{episode}] to do without it)")


def check_pace(times_s: np.ndarray, dt_s: float, *, lost_steps: float, where: str, episode: int) -> None:
    """Compare timestamps with the declared time step.

    Args:
        times_s: Rising times `T`, s.
        dt_s: The declared step, s; 0 if none is.
        lost_steps: Allowed deviation of a single step, in steps.
        where: The file.
        episode: Its number.

    Raises:
        BadEpisode: If a step jumps, or the median step differs by more than a fifth.
    """
    steps = np.diff(times_s)
    if dt_s <= 0 or not len(steps):
        return
    off = np.abs(steps - dt_s)
    worst, usual = int(off.argmax()), float(np.median(steps))
    other = len(steps) >= FEW and abs(usual - dt_s) > PACE * dt_s
    if other or off[worst] > lost_steps * dt_s:
        told = f"goes in steps of {usual:.6g} s" if other else f"jumps by {steps[worst]:.6g} s at step {worst}"
        problem = f"{told} of those read, the log counts {dt_s:.6g} s"
        remedy = "correct the times or the rate, or leave the episode out"
        raise fault(where, field=TIMESTAMP, problem=problem, remedy=remedy, episode=episode)


def image_shape(shape: Sequence[Any], *, where: str | Path, field: str) -> tuple[int, int, int]:
    """A plausible image shape `h w 3`.

    Raises:
        BadEpisode: If the sides are not positive and at most 8192, or there are not three channels.
    """
    sizes = tuple(shape)
    if len(sizes) != 3 or not all(type(size) is int and 0 < size <= MAX_SIDE for size in sizes) or sizes[2] != 3:
        raise fault(where, field=field, problem=f"has the image shape {sizes}", remedy="expected (height, width, 3)")
    return sizes


def blocks(log: Log, episode: int, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
    """An episode from its first step to its last, as many steps at a time as memory should hold (at least one).

    Args:
        log: The log.
        episode: Number of the episode.
        names: Fields that are read; nothing comes where there are none.

    Raises:
        BadEpisode: If the episode is damaged.
    """
    sizes = [np.dtype(log.fields[name].dtype).itemsize * math.prod(log.fields[name].shape) for name in names]
    each = max(BLOCK_BYTES // max(sum(sizes), 1), 1)
    for start in range(0, log.lengths[episode] if names else 0, each):
        yield log.read(episode, start, min(start + each, log.lengths[episode]), names)


def camera_name(field: str) -> str:
    """The camera of an image field."""
    return field.removeprefix(IMAGES)


def cameras_in(fields: Mapping[str, Field]) -> tuple[str, ...]:
    """All cameras of a log in the order of its fields."""
    return tuple(camera_name(name) for name in fields if name.startswith(IMAGES))


def timestamps(start: int, stop: int, dt_s: float) -> np.ndarray:
    """Timestamps of steps start..stop-1 at a constant rate, s."""
    return np.arange(start, stop, dtype=np.float64) * dt_s


def read_json(path: Path, *, field: str = "file") -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        BadEpisode: If the file is missing, too large or holds no object.
    """
    if plain_file(path, path.parent, field=field).stat().st_size > MAX_JSON:
        raise fault(path, field=field, problem=f"has {path.stat().st_size} bytes, too many for a JSON header")
    try:
        value = parse_json(read_plain(path, path.parent, field=field))
    except BadEpisode:
        raise
    except ValueError as error:
        raise fault(path, field=field, problem=f"is not JSON ({error})", remedy="restore the file") from error
    if not isinstance(value, dict):
        raise fault(path, field=field, problem="must hold a JSON object", remedy="restore the file")
    return value
