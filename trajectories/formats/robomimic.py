"""robomimic's HDF5 layout: `data/demo_<i>/{obs/<name>, actions, rewards, dones, states}`, one file for all episodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from jepa_mpc.errors import MissingPackage
from jepa_mpc.files import atomic_file
from jepa_mpc.plain_json import parse_json
from jepa_mpc.trajectories.checksums import write_checksums
from jepa_mpc.trajectories.episode import ACTION, DONE, IMAGES
from jepa_mpc.trajectories.formats.apart import Send
from jepa_mpc.trajectories.formats.base import Log, blocks, fault
from jepa_mpc.trajectories.formats.h5 import READ_ERRORS, attribute, member_of, names_of, noted_count
from jepa_mpc.trajectories.formats.h5log import H5Episode, H5Log, episode_at, numbered
from jepa_mpc.trajectories.guards import time_step

THEIRS = {"actions": ACTION, "dones": DONE, "rewards": "reward"}
OURS = {ours: theirs for theirs, ours in THEIRS.items()}


class RobomimicReader(H5Log):
    """A robomimic file; field `obs/<name>` is `observation.<name>`, `obs/<camera>_image` a camera.

    Args:
        path: The .hdf5 file.

    Raises:
        BadEpisode: If the file is damaged or its counts are inconsistent.
    """

    format: ClassVar[str] = "robomimic"

    def metadata(self, index: int) -> dict[str, Any]:
        """Name of the demonstration, its attributes and the environment's arguments."""
        here = self.episodes[index]

        def read(file: Any, send: Send) -> dict[str, Any]:
            group = member_of(file, here.group, where=here.path, field=here.group)
            return _json(attribute(group, "metadata", here.path))

        return {"demo": here.group.rpartition("/")[2], **self._read_h5(here.path, read)[0]}

    def _time_step(self, file: Any, path: Path) -> float:
        """From the environment's arguments."""
        data = member_of(file, "data", where=path, field="data")
        arguments = _json(attribute(data, "env_args", path)).get("env_kwargs")
        hz = arguments.get("control_freq") if isinstance(arguments, dict) else None
        return time_step(hz, where=path, field="data@env_args")

    def _episodes_of(self, file: Any, path: Path) -> list[H5Episode]:
        data = member_of(file, "data", where=path, field="data")
        names = numbered(names_of(data, "demo", path))
        episodes = [episode_at(path, f"data/{name}", partial(_length, data, name, path)) for name in names]
        if not any(episode.problem for episode in episodes):
            noted_count(data, "total", sum(episode.length for episode in episodes), path)
        return episodes

    def _rename(self, dataset: str) -> str | None:
        if dataset.startswith("next_obs/"):
            return None
        if dataset.startswith("obs/"):
            name = dataset.removeprefix("obs/").replace("/", ".")
            return IMAGES + name.removesuffix("_image") if name.endswith("_image") else "observation." + name
        return THEIRS.get(dataset, dataset.replace("/", "."))


def write_robomimic(log: Log, path: Path, *, progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> Path:
    """Write any log as one robomimic file, with its checksum beside it; it appears whole or not at all.

    Raises:
        MissingPackage: If h5py is not installed.
        BadEpisode: If an episode is damaged.
        ValueError: If the path does not end in .hdf5.
        OSError: If the disk is full.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingPackage("h5py", "jepa_mpc.trajectories.formats.robomimic") from error
    if path.suffix not in (".hdf5", ".h5"):
        raise ValueError(f"a robomimic log is one file that ends in .hdf5, got {path}")
    with atomic_file(path) as draft, h5py.File(draft, "w") as file:
        data = file.create_group("data")
        kwargs = {"control_freq": 1 / log.dt_s} if log.dt_s > 0 else {}
        data.attrs["env_args"] = json.dumps({"env_name": log.format, "type": 2, "env_kwargs": kwargs})
        for index in progress(range(len(log.lengths))):
            demo = data.create_group(f"demo_{index}")
            for name in log.fields:
                _write_column(demo, log, index, name)
            demo.attrs["num_samples"] = log.lengths[index]
            demo.attrs["metadata"] = json.dumps(log.metadata(index))
        data.attrs["total"] = sum(log.lengths)
    write_checksums(path)
    return path


def _write_column(demo: Any, log: Log, index: int, name: str) -> None:
    """One field of an episode, block by block."""
    column, at = None, 0
    for block in blocks(log, index, [name]):
        rows = block[name]
        if column is None:
            column = demo.create_dataset(_their_name(name), (log.lengths[index], *rows.shape[1:]), rows.dtype)
        column[at : at + len(rows)] = rows
        at += len(rows)


def _their_name(name: str) -> str:
    if name.startswith(IMAGES):
        return f"obs/{name.removeprefix(IMAGES)}_image"
    return "obs/" + name.removeprefix("observation.") if name.startswith("observation.") else OURS.get(name, name)


def _length(data: Any, name: str, path: Path) -> int:
    demo = member_of(data, name, where=path, field=f"data/{name}")
    actions = member_of(demo, "actions", where=path, field=f"data/{name}/actions")
    try:
        length = int(actions.shape[0])
    except READ_ERRORS as error:
        raise fault(path, field=f"data/{name}/actions", problem=f"has a damaged header ({error})") from error
    noted_count(demo, "num_samples", length, path)
    return length


def _json(text: Any) -> dict[str, Any]:
    try:
        value = parse_json(text.encode() if isinstance(text, str) else bytes(text or b""))
    except (ValueError, TypeError):
        return {}
    return value if isinstance(value, dict) else {}
