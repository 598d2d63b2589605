"""HDF5 files of any other make: one file per episode, one group per episode, or all episodes end to end.

Episodes end to end are cut where `ep_offset`/`ep_len` say so, else behind each step marked in `terminals`, `timeouts`,
`dones` or `episode_ends`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jepa_mpc.trajectories.episode import ACTION, DONE, IMAGES, STATE, TIMESTAMP
from jepa_mpc.trajectories.formats.base import fault
from jepa_mpc.trajectories.formats.h5 import datasets, member_of, open_h5, read_rows
from jepa_mpc.trajectories.formats.h5log import NUMBERED, H5Episode, H5Log, numbered

HEADS = ("observations", "observation", "obs")
CUTS = ("terminals", "timeouts", "dones", "done")
OTHERS = ("ep_offset", "ep_len", "episode_ends")
KNOWN = {
    "actions": ACTION, "action": ACTION, "dones": DONE, "done": DONE, "proprio": STATE, "state": STATE, "qpos": STATE,
    "time": TIMESTAMP, "timestamps": TIMESTAMP, "timestamp": TIMESTAMP,
}  # fmt: skip


class Hdf5Reader(H5Log):
    """HDF5 files whose datasets have time as their first axis.

    A uint8 dataset of pictures is the camera that its name says (`images/top`, `top_image`, `pixels`).

    Args:
        path: One file, or a folder of files in the order of the numbers in their names.

    Raises:
        BadEpisode: If no dataset runs along time, lengths differ or a file is damaged.
    """

    format: ClassVar[str] = "hdf5"

    def metadata(self, index: int) -> dict[str, Any]:
        """The attributes of the episode that JSON knows."""
        here = self.episodes[index]
        with open_h5(here.path) as file:
            group = member_of(file, here.group, where=here.path, field=here.group)
            attributes = {str(name): _plain(value) for name, value in group.attrs.items()}
        return {"file": here.path.name, **{name: value for name, value in attributes.items() if value is not None}}

    def _episodes_of(self, path: Path) -> list[H5Episode]:
        with open_h5(path) as file:
            self.dt_s = _time_step(file)
            found = datasets(file, path)
            at_root = [name for name in found if name.count("/") == 0 or name.split("/")[0] in HEADS]
            if at_root:
                return _cut(path, {name: found[name] for name in found})
            groups = numbered({name.rpartition("/")[0].split("/")[0] for name in found})
            inner = {name.split("/")[1] for name in found if name.count("/") > 1}
            if len(groups) == 1 and not NUMBERED.fullmatch(groups[0]) and inner:  # data/traj_0/...
                groups = [f"{groups[0]}/{name}" for name in numbered(inner)]
            return [
                H5Episode(path=path, group=group, length=_length(found, path, prefix=group + "/")) for group in groups
            ]

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
    """The episodes of a file whose datasets run through all of them."""

    def whole(name: str) -> np.ndarray:
        return read_rows(found[name], 0, found[name].shape[0], where=path, field=name).reshape(-1)

    if {"ep_offset", "ep_len"} <= found.keys():
        starts, lengths = whole("ep_offset").astype(np.int64), whole("ep_len").astype(np.int64)
        rest = {name: data for name, data in found.items() if name not in OTHERS}
        total = _length(rest, path)
        if len(starts) != len(lengths) or (lengths < 1).any() or not np.array_equal(
            starts, np.concatenate([[0], lengths.cumsum()[:-1]])
        ) or lengths.sum() != total:  # fmt: skip
            raise fault(path, field="ep_len", problem=f"does not divide the {total} steps", remedy="restore the file")
    else:
        total = _length({name: data for name, data in found.items() if name not in OTHERS}, path)
        marks = np.zeros(total, dtype=bool)
        for name in (name for name in CUTS if name in found):
            marks |= whole(name).astype(bool)
        if "episode_ends" in found:
            marks[whole("episode_ends").astype(np.int64) - 1] = True
        ends = np.unique(np.append(np.flatnonzero(marks) + 1, total))
        starts, lengths = np.concatenate([[0], ends[:-1]]), np.diff(ends, prepend=0)
    return [
        H5Episode(path=path, group="/", length=int(length), start=int(start))
        for start, length in zip(starts, lengths, strict=True)
    ]


def _length(found: dict[str, Any], path: Path, *, prefix: str = "") -> int:
    """Steps that the datasets below a group share; most of them decide, `actions` above all."""
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


def _time_step(file: Any) -> float:
    """Seconds between two steps, from an attribute `fps`, `hz` or `dt_s` of the file."""
    for name, as_rate in (("fps", True), ("hz", True), ("dt_s", False)):
        value = _plain(file.attrs.get(name))
        if isinstance(value, int | float) and value > 0:
            return 1.0 / value if as_rate else float(value)
    return 0.0


def _plain(value: Any) -> Any:
    """What JSON knows of an attribute, else None."""
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, str | int | float | bool):
        return None
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return None
    return value
