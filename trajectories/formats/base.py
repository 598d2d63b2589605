"""What all log readers share: bounds and value checks, checksums, and errors that name file, episode and field."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.interfaces import EpisodeStore, Field
from jepa_mpc.trajectories.checksums import Checksums
from jepa_mpc.trajectories.episode import FRAME_INDEX, IMAGES, TIMESTAMP

MAX_SIDE = 8192  # px; a picture that claims more is a damaged header
MAX_JSON = 64 << 20


class Log(EpisodeStore, Protocol):
    """An EpisodeStore that also tells where it comes from; what every reader gives.

    `format` names the layout, `path` the folder or file, `cameras` the cameras in stacking order, `dt_s` the seconds
    between two steps (0 if the log does not say).
    """

    format: ClassVar[str]
    path: Path
    cameras: tuple[str, ...]
    dt_s: float

    def metadata(self, index: int) -> dict[str, Any]:
        """What the log says about one episode, JSON values."""

    def sources(self, index: int) -> tuple[Path, ...]:
        """The files that one episode is read from."""


def fault(where: str | Path, *, field: str, problem: str, remedy: str = "", episode: int | None = None) -> BadEpisode:
    """The one shape of every complaint: file, episode, field, what is wrong, what would help."""
    place = where.name if isinstance(where, Path) else where
    at = "" if episode is None else f"episode {episode}: "
    return BadEpisode(f"{place}: {at}field {field!r} {problem}" + (f"; {remedy}" if remedy else ""))


class LogReader(ABC):
    """Base of the readers: subclasses fill `lengths`, `fields`, `cameras`, `dt_s` and give `columns`.

    Args:
        path: Folder or file of the log.

    Raises:
        BadEpisode: If there is nothing there.
    """

    format: ClassVar[str]
    lengths: Sequence[int]
    fields: Mapping[str, Field]
    cameras: tuple[str, ...]
    dt_s: float = 0.0

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise fault(str(path), field="file", problem="does not exist", remedy="name an existing log")
        self.checksums = Checksums(self.path)

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Steps start..stop-1 of the named fields, checked.

        Raises:
            BadEpisode: If a file is damaged, a field is missing or values break its declaration.
            IndexError: If there is no such episode, or the range is empty or leaves it.
        """
        if not 0 <= episode < len(self.lengths):
            raise IndexError(f"episode {episode} of a log with {len(self.lengths)}")
        if not 0 <= start < stop <= self.lengths[episode]:
            raise IndexError(f"steps {start}..{stop} are not inside episode {episode} of {self.lengths[episode]} steps")
        where = self.where(episode)
        for name in names:
            if name not in self.fields:
                known = ", ".join(self.fields)
                raise fault(where, field=name, problem="is not in this log", remedy=f"it has {known}", episode=episode)
        for path in self.sources(episode):
            self.checksums.check(path)
        columns = self.columns(episode, start, stop, names)
        for name in names:
            check_values(name, columns[name], self.fields[name], steps=stop - start, where=where, episode=episode)
        return {name: columns[name] for name in names}

    def metadata(self, index: int) -> dict[str, Any]:
        """What the log says about one episode, JSON values."""
        return {}

    def where(self, index: int) -> str:
        """The name of the file that complaints about an episode point to."""
        return self.sources(index)[0].name

    @abstractmethod
    def columns(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The steps asked for, as the file has them; bounds and names are sound."""

    @abstractmethod
    def sources(self, index: int) -> tuple[Path, ...]:
        """The files that one episode is read from."""


def check_values(name: str, array: np.ndarray, field: Field, *, steps: int, where: str, episode: int) -> None:
    """Check dtype, shape, finiteness and order of one column against its declaration.

    Raises:
        BadEpisode: If anything differs.
    """

    def bad(problem: str, remedy: str = "record it anew or leave the episode out") -> BadEpisode:
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


def image_shape(shape: Sequence[Any], *, where: str | Path, field: str) -> tuple[int, int, int]:
    """A believable picture shape `h w 3`.

    Raises:
        BadEpisode: If the sides are not positive and at most 8192, or there are not three channels.
    """
    sizes = tuple(shape)
    if len(sizes) != 3 or not all(type(size) is int and 0 < size <= MAX_SIDE for size in sizes) or sizes[2] != 3:
        raise fault(where, field=field, problem=f"has the picture shape {sizes}", remedy="expected (height, width, 3)")
    return sizes


def camera_name(field: str) -> str:
    """The camera of an image field."""
    return field.removeprefix(IMAGES)


def cameras_in(fields: Mapping[str, Field]) -> tuple[str, ...]:
    """All cameras of a log in the order of its fields."""
    return tuple(camera_name(name) for name in fields if name.startswith(IMAGES))


def timestamps(start: int, stop: int, dt_s: float) -> np.ndarray:
    """Times of steps start..stop-1 at an even rate, s."""
    return np.arange(start, stop, dtype=np.float64) * dt_s


def read_json(path: Path, *, field: str = "file") -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        BadEpisode: If the file is missing, huge or holds no object.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise fault(path, field=field, problem=f"has {path.stat().st_size} bytes, too many for a JSON header")
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise fault(path, field=field, problem=f"is missing in {path.parent}", remedy="restore it") from error
    except (ValueError, RecursionError, OSError) as error:
        raise fault(path, field=field, problem=f"is not JSON ({error})", remedy="restore the file") from error
    if not isinstance(value, dict):
        raise fault(path, field=field, problem="must hold a JSON object", remedy="restore the file")
    return value
