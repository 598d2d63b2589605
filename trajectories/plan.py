"""The layout of a cache: what it takes from a log and where each number is stored, fixed before anything is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.cache import FRAMES, CacheOptions, canonical_sha256
from jepa_mpc.trajectories.episode import EXTRAS, IMAGES, STATE, TIMESTAMP
from jepa_mpc.trajectories.formats import open_log
from jepa_mpc.trajectories.formats.base import fault
from jepa_mpc.trajectories.robots import COUNTERS, MappedLog, guess_robot, robot_map
from jepa_mpc.trajectories.windows import image_fields

MOST_TOLD = 5
LONGEST_ROW = 1024  # numbers per step; longer columns (depth) are skipped, except those of `EXTRAS`


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that determines the layout of a cache; a draft with another plan is discarded.

    Args:
        source: Path, format and fingerprint of the log.
        options: The requested options.
        robot: The resulting robot map.
        cameras: Cameras in stacking order.
        episodes: Numbers of the log's episodes.
        lengths: Steps of each of them.
        picture: Height and width of the images.
        columns: File, dtype, shape, unit and rate of each column.
        dt_s: Seconds between two steps.
    """

    source: dict[str, Any]
    options: dict[str, Any]
    robot: dict[str, Any]
    cameras: tuple[str, ...]
    episodes: tuple[int, ...]
    lengths: tuple[int, ...]
    picture: tuple[int, int]
    columns: dict[str, dict[str, Any]]
    dt_s: float

    @property
    def offsets(self) -> np.ndarray:
        """First step of each episode, and the total number of steps at the end."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    @property
    def frame_bytes(self) -> int:
        """Bytes of the images of one step."""
        return 3 * len(self.cameras) * self.picture[0] * self.picture[1]

    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        total = int(self.offsets[-1])
        return {FRAMES: total * self.frame_bytes} | {
            entry["file"]: total * row_bytes(entry) for entry in self.columns.values()
        }

    def to_dict(self) -> dict[str, Any]:
        """A JSON value."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def sha256(self) -> str:
        """A hash of the plan; equal plans have equal hashes."""
        return canonical_sha256(self.to_dict())


def make_plan(path: Path, options: CacheOptions, fingerprint: str) -> Plan:
    """Compute the layout of a cache for a log.

    Raises:
        BadEpisode: If the log cannot be opened.
        ValueError: If the log lacks what the options ask for.
    """
    log = opened(str(path), options, fingerprint)
    if log.dt_s <= 0:
        raise ValueError(
            f'{path} does not say how many steps it has per second: say it with "robot={{hz: 10}}", or in a robot file'
        )
    known = {*COUNTERS, *EXTRAS}
    numbers = [name for name in log.fields if not name.startswith(IMAGES) and name not in known]
    if STATE not in log.fields and numbers:  # a log of images alone is allowed
        raise ValueError(f"{path} has no proprioception: name its columns as state in a robot map")
    images = image_fields(log.fields, log.cameras if options.cameras is None else options.cameras)
    if not images:
        raise ValueError(f"{path} has no camera: a world model learns from images")
    sizes = {name: options.fit.shape(*log.fields[name].shape[:2]) for name in images}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"the cameras differ in size ({sizes}): give image_size=...")
    episodes = [i for i in range(len(log.lengths)) if i not in options.leave_out]
    unknown = set(options.leave_out) - set(range(len(log.lengths)))
    if unknown or not episodes:
        raise ValueError(f"cannot leave out {sorted(options.leave_out)} of {len(log.lengths)} episodes")
    _check_damage(log, episodes, options)
    return Plan(
        source={"path": str(path), "format": log.format, "fingerprint": fingerprint},
        options=options.to_dict(),
        robot=log.robot.to_dict(),
        cameras=tuple(name.removeprefix(IMAGES) for name in images),
        episodes=tuple(episodes),
        lengths=tuple(int(log.lengths[i]) for i in episodes),
        picture=sizes[images[0]],
        columns=_columns(log.fields),
        dt_s=float(log.dt_s),
    )


def _check_damage(log: MappedLog, episodes: Sequence[int], options: CacheOptions) -> None:
    """Refuse unreadable episodes, all of them in one message, unless they are left out."""
    damaged = [index for index in episodes if index in log.damaged]
    if not damaged:
        return
    told = ", ".join(log.damaged[index] for index in damaged[:MOST_TOLD]) + (", ..." if damaged[MOST_TOLD:] else "")
    problem = f"has {len(damaged)} damaged among {len(log.lengths)} ({told})"
    without = sorted({*options.leave_out, *damaged})
    raise fault(str(log.path), field="episodes", problem=problem, remedy=f"restore them, or leave_out={without}")


def _columns(declared: Mapping[str, Field]) -> dict[str, dict[str, Any]]:
    """Every numeric column that is not too long, with its file and its storage dtype."""
    taken: dict[str, dict[str, Any]] = {}
    for name, one in declared.items():
        long = len(one.shape) > 1 or int(np.prod(one.shape)) > LONGEST_ROW
        if name.startswith(IMAGES) or (long and name not in EXTRAS):
            continue
        kind = np.dtype(one.dtype).kind
        if kind not in "fiub":
            continue
        dtype = "float64" if name == TIMESTAMP else "float32" if kind == "f" else "bool" if kind == "b" else "int64"
        taken[name] = {
            "file": f"column_{len(taken):02d}.bin", "shape": list(one.shape), "dtype": dtype, "unit": one.unit,
            "hz": one.hz,
        }  # fmt: skip
    return taken


@lru_cache(maxsize=2)
def opened(path: str, options: CacheOptions, fingerprint: str) -> MappedLog:
    """The log, opened once per process as long as it does not change."""
    log = open_log(path, format=options.format)
    return MappedLog(log, robot=robot_map({**guess_robot(log).to_dict(), **dict(options.robot)}))


def row_bytes(entry: Mapping[str, Any]) -> int:
    """Bytes of one step of a column."""
    return int(np.prod(entry["shape"], dtype=np.int64)) * np.dtype(entry["dtype"]).itemsize
