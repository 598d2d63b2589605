"""HDF5 files without a known layout: one file per episode, one group per episode, or all episodes concatenated.

Concatenated episodes are split by `ep_offset`/`ep_len` where present, else after each step marked in `terminals`,
`timeouts`, `dones` or `episode_ends`.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jepa_mpc.trajectories.episode import ACTION, DONE, IMAGES, STATE, TIMESTAMP
from jepa_mpc.trajectories.formats.apart import Send
from jepa_mpc.trajectories.formats.base import fault
from jepa_mpc.trajectories.formats.h5 import MAX_MEMBERS, attribute, datasets, member_of, read_rows
from jepa_mpc.trajectories.formats.h5log import NUMBERED, H5Episode, H5Log, episode_at, numbered
from jepa_mpc.trajectories.guards import time_step

HEADS = ("observations", "observation", "obs")
CUTS = ("terminals", "timeouts", "dones", "done")
OTHERS = ("ep_offset", "ep_len", "episode_ends")
KNOWN = {
    "actions": ACTION, "action": ACTION, "dones": DONE, "done": DONE, "proprio": STATE, "state": STATE, "qpos": STATE,
    "time": TIMESTAMP, "timestamps": TIMESTAMP, "timestamp": TIMESTAMP,
}  # fmt: skip


class Hdf5Reader(H5Log):
    """HDF5 files whose datasets have time as their first axis.

    A uint8 dataset of images is the camera that its name gives (`images/top`, `top_image`, `pixels`).

    Args:
        path: One file, or a folder of files in the order of the numbers in their names.

    Raises:
        BadEpisode: If no dataset has a time axis, lengths differ or a file is damaged.
    """

    format: ClassVar[str] = "hdf5"

    def metadata(self, index: int) -> dict[str, Any]:
        """The attributes of the episode that JSON can represent."""
        here = self.episodes[index]

        def read(file: Any, send: Send) -> dict[str, Any]:
            group = member_of(file, here.group, where=here.path, field=here.group)
            names = [str(name) for name in group.attrs] if len(group.attrs) < MAX_MEMBERS else []
            return {name: _plain(attribute(group, name, here.path)) for name in names}

        attributes = self._read_h5(here.path, read)[0]
        return {"file": here.path.name, **{name: value for name, value in attributes.items() if value is not None}}

    def _time_step(self, file: Any, path: Path) -> float:
        """From an attribute `fps`, `hz` or `dt_s` of the file."""
        for name, as_rate in (("fps", True), ("hz", True), ("dt_s", False)):
            found = time_step(attribute(file, name, path), where=path, field=f"@{name}", rate=as_rate)
            if found:
                return found
        return 0.0

    def _episodes_of(self, file: Any, path: Path) -> list[H5Episode]:
        found = datasets(file, path)
        at_root = [name for name in found if name.count("/") == 0 or name.split("/")[0] in HEADS]
        if at_root:
            return _cut(path, {name: found[name] for name in found})
        groups = numbered({name.rpartition("/")[0].split("/")[0] for name in found})
        inner = {name.split("/")[1] for name in found if name.count("/") > 1}
        if len(groups) == 1 and not NUMBERED.fullmatch(groups[0]) and inner:  # data/traj_0/...
            groups = [f"{groups[0]}/{name}" for name in numbered(inner)]
        return [episode_at(path, group, partial(_length, found, path, prefix=group + "/")) for group in groups]

    def _rename(self, dataset: str) -> str | None:
        *parents, name = dataset.split("/")
        if name in OTHERS:
            return None
        inner = [part for part in parents if part not in HEADS]
        if "images" in inner or name.endswith("_image") or name in ("pixels", "image"):
            return IMAGES + name.removesuffix("_image")
        if inner:
            return ".".join(["observation", *inner, name]) if len(inner) < len(parents) else ".".join([*inner, name])
        if name in KNOWN or dataset in HEADS:
            return KNOWN.get(name, STATE)
        return f"observation.{name}" if parents else name


def _cut(path: Path, found: dict[str, Any]) -> list[H5Episode]:
    """The episodes of a file whose datasets span all of them."""

    def whole(name: str) -> np.ndarray:
        return read_rows(found[name], 0, found[name].shape[0], where=path, field=name).reshape(-1)

    def numbers(name: str) -> np.ndarray:
        if found[name].dtype.kind not in "iu":
            raise fault(path, field=name, problem=f"has dtype {found[name].dtype}", remedy="expected whole numbers")
        return whole(name).astype(np.int64)

    total = _length({name: data for name, data in found.items() if name not in OTHERS}, path)
    if {"ep_offset", "ep_len"} <= found.keys():
        starts, lengths, name = numbers("ep_offset"), numbers("ep_len"), "ep_len"
    elif "episode_ends" in found:
        ends, name = numbers("episode_ends"), "episode_ends"
        starts, lengths = np.concatenate([[0], ends[:-1]]), np.diff(ends, prepend=0)
    else:
        marks = np.zeros(total, dtype=bool)
        for name in (name for name in CUTS if name in found):
            marks |= _marks(whole(name), total, path, name)
        ends, name = np.unique(np.append(np.flatnonzero(marks) + 1, total)), "/"
        starts, lengths = np.concatenate([[0], ends[:-1]]), np.diff(ends, prepend=0)
    rows = np.concatenate([[0], lengths.cumsum()])
    if len(starts) != len(lengths) or (lengths < 1).any() or rows[-1] != total or not np.array_equal(starts, rows[:-1]):
        raise fault(path, field=name, problem=f"does not divide the {total} steps", remedy="restore the file")
    return [
        H5Episode(path=path, group="/", length=int(length), start=int(start))
        for start, length in zip(starts, lengths, strict=True)
    ]


def _marks(column: np.ndarray, total: int, path: Path, name: str) -> np.ndarray:
    """The episode ends, from a column of 0 and 1."""
    if len(column) != total or not np.isin(column, (0, 1)).all():
        raise fault(path, field=name, problem=f"must hold {total} times 0 or 1", remedy="restore the file")
    return column.astype(bool)


def _length(found: dict[str, Any], path: Path, *, prefix: str = "") -> int:
    """Number of steps of the datasets below a group: that of `actions`, else the most common one."""
    sizes = {name: data.shape[0] for name, data in found.items() if name.startswith(prefix) and data.shape}
    if not sizes:
        raise fault(path, field=prefix or "/", problem="holds no dataset with time as first axis")
    chosen = next((size for name, size in sizes.items() if name.rpartition("/")[2] in ("actions", "action")), None)
    if chosen is None:
        counts = list(sizes.values())
        chosen = max(set(counts), key=counts.count)
    other = {name: size for name, size in sizes.items() if size != chosen}
    if other:
        name, size = next(iter(other.items()))
        raise fault(path, field=name, problem=f"has {size} steps where others have {chosen}", remedy="restore the file")
    return int(chosen)


def _plain(value: Any) -> Any:
    """An attribute as a JSON value, or None if JSON cannot represent it."""
    if not isinstance(value, str | int | float | bool):
        return None
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        return None
    return value
