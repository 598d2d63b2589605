"""A log as memory-mapped files: images at the training size, rows as float32, with checksums.

A cache is a folder that is built once from a log of any format (`trajectories.ingest`):

    cache.json       source and options; size and checksum of each file; statistics of every column; its own SHA-256
    episodes.jsonl   one line per episode: SHA-256 of its images and of its rows, and the log's metadata
    frames.bin       uint8 `G C h w`, all G steps in order, three channels per camera
    column_00.bin    the rows of one column `G ...`: float32, times float64, counters int64

It is an EpisodeStore like any log, and does not need the log to open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jepa_mpc.files import published
from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.cache_index import EPISODES as EPISODES
from jepa_mpc.trajectories.cache_index import FRAMES as FRAMES
from jepa_mpc.trajectories.cache_index import INDEX as INDEX
from jepa_mpc.trajectories.cache_index import REMEDY, check_files, parse_index, read_episodes, read_index
from jepa_mpc.trajectories.cache_index import canonical_sha256 as canonical_sha256
from jepa_mpc.trajectories.episode import IMAGES
from jepa_mpc.trajectories.formats.base import fault
from jepa_mpc.trajectories.guards import no_log
from jepa_mpc.trajectories.resizing import Aspect, PictureFit
from jepa_mpc.trajectories.robots import RobotMap, robot_map

CACHE_VERSION = 1
Progress = Callable[[Iterable[int]], Iterable[int]]


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """What the cache takes from a log, and in which form.

    Args:
        cameras: Which cameras, in stacking order; None for all.
        image_size: Width and height of the images, px; None keeps the size of the log.
        aspect: How images become square; see `PictureFit`.
        robot: Corrections to the guessed robot map: `told(map or mapping)`.
        format: The log's format; detected by default.
        leave_out: Numbers of episodes to skip (damaged ones).

    Raises:
        ValueError: If `cameras` is no list of different names.
    """

    cameras: tuple[str, ...] | None = None
    image_size: int | None = None
    aspect: Aspect = "crop"
    robot: tuple[tuple[str, Any], ...] = ()
    format: str | None = None
    leave_out: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        named = self.cameras
        if named is None:
            return
        if isinstance(named, str) or not all(isinstance(name, str) for name in named):
            raise ValueError(f"cameras must be a list of names, got {named!r}: [left] for one")
        if len(set(named)) != len(named):
            raise ValueError(f"each camera can be taken once, got {', '.join(named)}")

    @property
    def fit(self) -> PictureFit:
        """How images are resized."""
        return PictureFit(size=self.image_size, aspect=self.aspect)

    def to_dict(self) -> dict[str, Any]:
        """A JSON value."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        told_of = {key: list(value) if isinstance(value, tuple) else value for key, value in self.robot}
        return plain | {"robot": told_of}

    def key(self) -> str:
        """A short name that is unique to the options."""
        return canonical_sha256(self.to_dict())[:16]


def told(robot: RobotMap | Mapping[str, Any] | None) -> tuple[tuple[str, Any], ...]:
    """A robot map in the form that `CacheOptions` takes; entries that are None are left to the guess.

    Raises:
        ValueError: If a robot map has no such entry, or a value has the wrong type.
    """
    given = robot.to_dict() if isinstance(robot, RobotMap) else dict(robot or {})
    given = {str(key): value for key, value in given.items() if value is not None}
    robot_map(given)
    return tuple(sorted((key, tuple(value) if isinstance(value, list) else value) for key, value in given.items()))


class Cache:
    """An open cache.

    Opening compares the sizes of all files, the index and the rows with their checksums; `check` compares the images.

    Args:
        folder: The cache.

    Raises:
        BadEpisode: If it is damaged, incomplete or of another version; the message says what to do.
    """

    format: ClassVar[str] = "cache"

    def __init__(self, folder: str | Path) -> None:
        self.path = published(folder)
        index = read_index(self.path)
        if index.get("version") != CACHE_VERSION:
            problem = f"is {index.get('version')!r}, this program reads {CACHE_VERSION}"
            raise fault(f"{self.path}/{INDEX}", field="version", problem=problem, remedy=REMEDY)
        described = parse_index(index, self.path)
        check_files(described, index["files"], self.path)
        self.index, self.picture = index, described.picture
        self.lengths: Sequence[int] = list(described.lengths)
        self.groups: Sequence[int] = list(described.groups)
        self.cameras, self.dt_s, self.columns = described.cameras, described.dt_s, described.columns
        self.robot, self.fit = described.robot, described.fit
        self.damaged: dict[int, str] = {}
        height, width = self.picture
        hz = 1 / self.dt_s if self.dt_s > 0 else None
        pictures = {IMAGES + camera: Field((height, width, 3), "uint8", "RGB", hz) for camera in self.cameras}
        self.fields: Mapping[str, Field] = pictures | {name: one.declared for name, one in self.columns.items()}
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def frames(self) -> np.ndarray:
        """All pictures `G C h w`; writable for torch's sake, yet nothing is ever written back."""
        height, width = self.picture
        return self._map(FRAMES, np.uint8, (3 * len(self.cameras), height, width))

    def rows(self, name: str) -> np.ndarray:
        """All rows of a column `G ...`.

        Raises:
            BadEpisode: If the log had no such column; lists the columns that it had.
        """
        if name not in self.columns:
            known = ", ".join(self.columns)
            raise fault(self.path, field=name, problem="is not in this log", remedy=f"it has {known}")
        if name not in self._mapped:
            one = self.columns[name]
            self._mapped[name] = self._map(one.file, np.dtype(one.declared.dtype), one.declared.shape)
        return self._mapped[name]

    def read(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Steps start..stop-1 of the named fields.

        Raises:
            BadEpisode: If there is no such field.
            IndexError: If there is no such episode, or the range is empty or leaves it.
        """
        if not 0 <= episode < len(self.lengths) or not 0 <= start < stop <= self.lengths[episode]:
            raise IndexError(f"steps {start}..{stop} of episode {episode} are not in this cache")
        first = int(self.offsets[episode])
        span = slice(first + start, first + stop)
        return {name: (self._pictures(name) if name.startswith(IMAGES) else self.rows(name))[span] for name in names}

    def metadata(self, index: int) -> dict[str, Any]:
        """What the log said about one episode."""
        return dict(self._episodes[index]["metadata"])

    def sources(self, index: int) -> tuple[Path, ...]:
        """The cache's own files."""
        return (self.path / FRAMES, *(self.path / one.file for one in self.columns.values()))

    def check(self, progress: Progress = iter) -> None:
        """Compare every image and row with its checksum.

        Raises:
            BadEpisode: At the first episode that differs.
        """
        for index in progress(range(len(self.lengths))):
            span = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
            rows = (self.rows(name)[span] for name in self.columns)
            sums = {"frames": sha256_of([self.frames[span]]), "rows": sha256_of(rows)}
            wrong = [name for name, value in sums.items() if value != self._episodes[index][name]]
            if wrong:
                problem = "differs from its checksum"
                raise fault(f"{self.path}", field=wrong[0], problem=problem, remedy=REMEDY, episode=index)

    @cached_property
    def _mapped(self) -> dict[str, np.ndarray]:
        return {}

    @cached_property
    def _episodes(self) -> list[dict[str, Any]]:
        return read_episodes(self.path, len(self.lengths))

    def _pictures(self, name: str) -> np.ndarray:
        """One camera of all steps, `G h w 3`."""
        camera = name.removeprefix(IMAGES)
        if camera not in self.cameras:
            known = ", ".join(self.cameras)
            raise fault(self.path, field=name, problem="is not in this cache", remedy=f"its cameras are {known}")
        at = 3 * self.cameras.index(camera)
        return self.frames[:, at : at + 3].transpose(0, 2, 3, 1)

    def _map(self, file: str, dtype: np.dtype | type, step: tuple[int, ...]) -> np.ndarray:
        return np.memmap(self.path / file, dtype, "c", shape=(int(self.offsets[-1]), *step))


def is_cache(path: str | Path) -> bool:
    """Whether a path is a finished cache."""
    return (published(path) / INDEX).exists()


def source_fingerprint(path: Path) -> str:
    """A hash of the names, sizes and modification times of a log's files; it changes when the log does.

    Raises:
        BadEpisode: If the path does not exist.
    """
    if not path.exists():
        raise no_log(path)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    root = path.parent if path.is_file() else path
    facts = []
    for file in files:
        name = file.relative_to(root)
        if any(part.startswith(".") for part in name.parts) or name.name.endswith("checksums.json"):
            continue
        stat = file.stat()
        facts.append((name.as_posix(), stat.st_size, stat.st_mtime_ns))
    return canonical_sha256(facts)


def sha256_of(arrays: Iterable[np.ndarray]) -> str:
    """SHA-256 of the bytes of several arrays, one after another."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
