"""The index of a cache (`cache.json`): read, and compared with its own checksum and with the cache's files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.interfaces import Field
from jepa_mpc.plain_json import parse_json_lines, read_json_file
from jepa_mpc.reading import is_plain_name
from jepa_mpc.trajectories.checksums import file_sha256
from jepa_mpc.trajectories.formats.base import MAX_SIDE, fault
from jepa_mpc.trajectories.guards import plain_file, read_plain, time_step
from jepa_mpc.trajectories.resizing import PictureFit
from jepa_mpc.trajectories.robots import RobotMap, robot_map

INDEX, EPISODES, FRAMES = "cache.json", "episodes.jsonl", "frames.bin"
REMEDY = "delete the cache folder; it is made again from the log"
DTYPES = ("float32", "float64", "int64", "bool")
MOST_STEPS = 1 << 40
MOST_AXES = 8  # of a step; numpy knows no more than 64
WRONG = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, kw_only=True)
class CachedColumn:
    """One column: the file that holds it, and shape, dtype and unit of a step."""

    file: str
    declared: Field


@dataclass(frozen=True, kw_only=True)
class CacheIndex:
    """The content of a cache's index.

    Args:
        lengths: Observations of each episode.
        groups: A number per episode; those of one group stay on one side of a split.
        cameras: Cameras in stacking order.
        dt_s: Seconds between two steps; 0 if unknown.
        robot: The meaning of the log's columns.
        fit: How the pictures were resized.
        columns: The columns by name.
        picture: Height and width of the pictures, px.
    """

    lengths: tuple[int, ...]
    groups: tuple[int, ...]
    cameras: tuple[str, ...]
    dt_s: float
    robot: RobotMap
    fit: PictureFit
    columns: Mapping[str, CachedColumn]
    picture: tuple[int, int]

    def sizes(self) -> dict[str, int]:
        """The size that each file must have in bytes, by its name."""
        steps, (height, width) = sum(self.lengths), self.picture
        found = {FRAMES: steps * 3 * len(self.cameras) * height * width}
        for one in self.columns.values():
            found[one.file] = (
                steps * int(np.prod(one.declared.shape, dtype=object)) * np.dtype(one.declared.dtype).itemsize
            )
        return found


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a cache, compared with its own checksum.

    Raises:
        BadEpisode: If it is missing or damaged.
    """
    where = f"{folder}/{INDEX}"
    try:
        index = read_json_file(folder / INDEX)
        noted = index.pop("sha256")
        differs = canonical_sha256(index) != noted  # raises on numbers that are not finite
    except FileNotFoundError as error:
        raise fault(where, field="file", problem="is missing", remedy="name a finished cache") from error
    except (*WRONG, OSError) as error:
        raise fault(where, field="file", problem=f"is unreadable ({error})", remedy=REMEDY) from error
    if differs:
        raise fault(where, field="sha256", problem="differs from the content", remedy=REMEDY)
    return dict(index)


def parse_index(index: Mapping[str, Any], folder: Path) -> CacheIndex:
    """Check that an index is complete and every value has the right type and range.

    Raises:
        BadEpisode: If not.
    """
    where = f"{folder}/{INDEX}"
    try:
        lengths, groups = _numbers(index["lengths"]), _numbers(index["groups"])
        cameras, picture = tuple(index["cameras"]), _numbers(index["picture"])
        episodes, names = _numbers(index["episodes"]), [*index["source"], *index["options"], *index["files"]]
        if (
            not lengths
            or min(lengths) < 1
            or sum(lengths) > MOST_STEPS
            or {len(groups), len(episodes)} != {len(lengths)}
        ):
            raise ValueError(f"lengths of {len(lengths)} episodes, {len(groups)} groups, {len(episodes)} numbers")
        if not isinstance(index["cameras"], list) or not all(isinstance(name, str) for name in (*cameras, *names)):
            raise ValueError("names that are no texts")
        if not isinstance(index["files"], dict):
            raise ValueError("files without sizes")
        if not cameras or len(set(cameras)) < len(cameras) or len(picture) != 2:
            raise ValueError(f"the cameras {cameras} with pictures of {picture}")
        if isinstance(index["dt_s"], str | bool) or not all(0 < side <= MAX_SIDE for side in picture):
            raise ValueError(f"pictures of {picture}, steps of {index['dt_s']!r} s")
        return CacheIndex(
            lengths=lengths, groups=groups, cameras=cameras, picture=(picture[0], picture[1]),
            dt_s=time_step(index["dt_s"], where=where, field="dt_s", rate=False),
            robot=robot_map(index["robot"]), fit=PictureFit(**index["fit"]),
            columns={name: _column(name, entry) for name, entry in index["columns"].items()},
        )  # fmt: skip
    except BadEpisode:
        raise
    except WRONG as error:
        raise fault(where, field="file", problem=f"is unreadable ({error!r})", remedy=REMEDY) from error


def check_files(described: CacheIndex, noted: Mapping[str, Any], folder: Path) -> None:
    """Compare the files of a cache with their sizes, and all but the pictures, which are long, with their checksums.

    Args:
        described: The index.
        noted: Size and checksum of each file, by its name.
        folder: The cache.

    Raises:
        BadEpisode: If a file is missing, is a link or no plain file, is not listed, or differs.
    """
    sizes = described.sizes()
    for name in sorted({*sizes, EPISODES, *noted}):
        path, where = folder / name, f"{folder}/{name}"
        match noted.get(name):
            case {"bytes": int(size), **more} if is_plain_name(name) and (name == FRAMES or "sha256" in more):
                pass
            case _:
                raise fault(where, field="file", problem=f"is not listed in {INDEX}", remedy=REMEDY)
        found = plain_file(path, folder).stat().st_size
        if found != size or sizes.get(name, size) != size:
            wanted = sizes.get(name, size)
            problem = f"has {found} bytes, noted are {size}, its rows need {wanted}"
            raise fault(where, field="file", problem=problem, remedy=REMEDY)
        if name != FRAMES and file_sha256(path) != more["sha256"]:
            raise fault(where, field="file", problem="differs from its checksum", remedy=REMEDY)


def read_episodes(folder: Path, count: int) -> list[dict[str, Any]]:
    """The checksums of each episode's pictures and rows, and its metadata: a line of JSON each.

    Raises:
        BadEpisode: If a line is missing or is not of this form.
    """
    where = f"{folder}/{EPISODES}"
    try:
        lines = parse_json_lines(read_plain(folder / EPISODES, folder))
        kept = [
            {"frames": str(one["frames"]), "rows": str(one["rows"]), "metadata": {**one["metadata"]}} for one in lines
        ]
        if len(kept) != count:
            raise ValueError(f"{len(kept)} lines for {count} episodes")
        return kept
    except BadEpisode:
        raise
    except WRONG as error:
        raise fault(where, field="file", problem=f"is unreadable ({error})", remedy=REMEDY) from error


def canonical_sha256(value: Any) -> str:
    """SHA-256 of a JSON value that does not depend on white space and on the order of keys.

    Raises:
        ValueError: If it holds NaN or an infinity.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(value) is int and abs(value) < 2**62 for value in values):
        raise ValueError(f"expected whole numbers, got {str(values)[:80]}")
    return tuple(values)


def _column(name: str, entry: Mapping[str, Any]) -> CachedColumn:
    shape, file = _numbers(entry["shape"]), entry["file"]
    if not isinstance(file, str) or not is_plain_name(file) or file in (INDEX, EPISODES, FRAMES):
        raise ValueError(f"{name} lies in {file!r}")
    if entry["dtype"] not in DTYPES or len(shape) > MOST_AXES or not all(0 <= size < 2**31 for size in shape):
        raise ValueError(f"{name} has dtype {entry['dtype']!r} and shape {shape[: MOST_AXES + 1]}")
    if entry["hz"] is not None and type(entry["hz"]) not in (int, float):
        raise ValueError(f"{name} has {str(entry['hz'])[:80]!r} steps per second")
    return CachedColumn(file=file, declared=Field(shape, entry["dtype"], str(entry["unit"]), entry["hz"]))
