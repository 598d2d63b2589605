"""robomimic's HDF5 layout: `data/demo_<i>/{obs/<name>, actions, rewards, dones, states}`, one file for all episodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jepa_mpc.errors import MissingPackage
from jepa_mpc.files import atomic_file
from jepa_mpc.trajectories.checksums import write_checksums
from jepa_mpc.trajectories.episode import ACTION, DONE, IMAGES
from jepa_mpc.trajectories.formats.base import Log, fault
from jepa_mpc.trajectories.formats.h5 import READ_ERRORS, member_of, open_h5
from jepa_mpc.trajectories.formats.h5log import H5Episode, H5Log, numbered

THEIRS = {"actions": ACTION, "dones": DONE, "rewards": "reward"}
OURS = {ours: theirs for theirs, ours in THEIRS.items()}


class RobomimicReader(H5Log):
    """A robomimic file; field `obs/<name>` is `observation.<name>`, `obs/<camera>_image` a camera.

    Args:
        path: The .hdf5 file.

    Raises:
        BadEpisode: If the file is damaged or its counts contradict each other.
    """

    format: ClassVar[str] = "robomimic"

    def metadata(self, index: int) -> dict[str, Any]:
        """Name of the demonstration, its attributes and the environment's arguments."""
        here = self.episodes[index]
        with open_h5(here.path) as file:
            group = member_of(file, here.group, where=here.path, field=here.group)
            text = group.attrs.get("metadata")
            kept = _json(text) if text is not None else {}
        return {"demo": here.group.rpartition("/")[2], **kept}

    def _episodes_of(self, path: Path) -> list[H5Episode]:
        with open_h5(path) as file:
            data = member_of(file, "data", where=path, field="data")
            self.dt_s = _time_step(data)
            names = numbered(name for name in data if str(name).startswith("demo"))
            episodes = [H5Episode(path=path, group=f"data/{name}", length=_length(data, name, path)) for name in names]
            total = data.attrs.get("total")
        counted = sum(episode.length for episode in episodes)
        if total is not None and int(total) != counted:
            problem = f"is {total}, the demonstrations hold {counted} steps"
            raise fault(path, field="data@total", problem=problem, remedy="restore the file")
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
            for name, column in log.read(index, 0, log.lengths[index], list(log.fields)).items():
                demo.create_dataset(_their_name(name), data=column)
            demo.attrs["num_samples"] = log.lengths[index]
            demo.attrs["metadata"] = json.dumps(log.metadata(index))
        data.attrs["total"] = sum(log.lengths)
    write_checksums(path)
    return path


def _their_name(name: str) -> str:
    if name.startswith(IMAGES):
        return f"obs/{name.removeprefix(IMAGES)}_image"
    return "obs/" + name.removeprefix("observation.") if name.startswith("observation.") else OURS.get(name, name)


def _time_step(data: Any) -> float:
    """Seconds between two steps as the environment's arguments say, else 0."""
    arguments = _json(data.attrs.get("env_args", "{}")).get("env_kwargs")
    hz = arguments.get("control_freq") if isinstance(arguments, dict) else None
    return 1.0 / hz if isinstance(hz, int | float) and hz > 0 else 0.0


def _length(data: Any, name: str, path: Path) -> int:
    demo = member_of(data, name, where=path, field=f"data/{name}")
    actions = member_of(demo, "actions", where=path, field=f"data/{name}/actions")
    try:
        length, noted = int(actions.shape[0]), demo.attrs.get("num_samples")
    except READ_ERRORS as error:
        raise fault(path, field=f"data/{name}/actions", problem=f"has a damaged header ({error})") from error
    if noted is not None and int(noted) != length:
        problem = f"is {noted}, there are {length} actions"
        raise fault(path, field=f"data/{name}@num_samples", problem=problem, remedy="restore the file")
    return length


def _json(text: Any) -> dict[str, Any]:
    try:
        value = json.loads(text if isinstance(text, str | bytes) else str(np.asarray(text)))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
