"""Minari datasets: `data/main_data.hdf5` with `episode_<i>/{observations, actions, ...}` and `data/metadata.json`.

Read with h5py alone. Minari has one more observation than actions; the reader appends a zero action.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jepa_mpc.trajectories.episode import ACTION
from jepa_mpc.trajectories.formats.base import fault, read_json
from jepa_mpc.trajectories.formats.h5 import datasets, member_of, names_of, read_rows
from jepa_mpc.trajectories.formats.h5log import H5Episode, H5Log, episode_at, numbered
from jepa_mpc.trajectories.guards import time_step

MAIN, METADATA = "data/main_data.hdf5", "data/metadata.json"
SKIPPED = ("infos",)


class MinariReader(H5Log):
    """A Minari dataset that is stored as HDF5.

    A dictionary of observations becomes `observation.<key>`, a tuple `observation.0`, `observation.1`, ...; a single
    array
    is `observation.state`, or a camera if it is an image.

    Args:
        path: The dataset's folder (the one that holds `data/`).

    Raises:
        BadEpisode: If it is stored in another form, is damaged or has wrong counts.
    """

    format: ClassVar[str] = "minari"

    def metadata(self, index: int) -> dict[str, Any]:
        """Name of the dataset."""
        return {"dataset": str(self.header.get("dataset_id", self.path.name))}

    def _find_files(self) -> list[Path]:
        self.check_file(self.path / METADATA)
        self.header = read_json(self.path / METADATA)
        kept = self.header.get("data_format", "hdf5")
        if kept != "hdf5":
            remedy = "write it anew with data_format='hdf5'"
            raise fault(self.path / METADATA, field="data_format", problem=f"is {kept!r}", remedy=remedy)
        self.dt_s = time_step(self.header.get("render_fps"), where=METADATA, field="render_fps")
        return [self.path / MAIN]

    def _episodes_of(self, file: Any, path: Path) -> list[H5Episode]:
        names = numbered(names_of(file, "episode_", path))
        episodes = [episode_at(path, name, partial(_length, file, name, path)) for name in names]
        if any(episode.problem for episode in episodes):
            return episodes  # a header count that cannot be compared
        steps = sum(episode.length - 1 for episode in episodes)
        for field, counted in (("total_episodes", len(episodes)), ("total_steps", steps)):
            if field in self.header and self.header[field] != counted:
                problem = f"is {self.header[field]!r}, {MAIN} holds {counted}"
                raise fault(self.path / METADATA, field=field, problem=problem, remedy="restore the dataset")
        return episodes

    def _rename(self, dataset: str) -> str | None:
        head, _, rest = dataset.partition("/")
        if head in SKIPPED:
            return None
        rest = "/".join(part.removeprefix("_index_") for part in rest.split("/"))
        if head == "observations":
            return "observation." + rest.replace("/", ".") if rest else "observation.state"
        head = {"actions": ACTION}.get(head, head)
        return f"{head}.{rest.replace('/', '.')}" if rest else head

    def _check_rows(self, rows: int, episode: H5Episode, dataset: str) -> None:
        if rows != episode.length - 1:  # rewards etc. have as many rows as actions
            super()._check_rows(rows, episode, dataset)

    def _rows(self, dataset: Any, here: H5Episode, start: int, stop: int, full: str) -> np.ndarray:
        """Rows of the file, with a row of zeros appended where there is one action fewer than observations."""
        count = dataset.shape[0] if dataset.shape else -1
        if count != here.length - 1:
            return super()._rows(dataset, here, start, stop, full)
        if start == count:
            return np.zeros((1, *dataset.shape[1:]), dataset.dtype)
        rows = read_rows(dataset, start, min(stop, count), where=here.path, field=full)
        return rows if stop <= count else np.concatenate([rows, np.zeros_like(rows[:1])])


def _length(file: Any, name: str, path: Path) -> int:
    """Observations of one episode: one more than its actions."""
    group = member_of(file, name, where=path, field=name)
    found = datasets(group, path)
    sizes = {key: data.shape[0] for key, data in found.items() if key.split("/")[0] == "observations" and data.shape}
    actions = {key: data.shape[0] for key, data in found.items() if key.split("/")[0] == "actions" and data.shape}
    if not sizes or len(set(sizes.values())) != 1:
        raise fault(path, field=f"{name}/observations", problem=f"is missing or has unequal lengths {sizes}")
    length = next(iter(sizes.values()))
    if not actions or set(actions.values()) != {length - 1}:
        problem = f"must have one step fewer than the {length} observations, got {actions}"
        raise fault(path, field=f"{name}/actions", problem=problem, remedy="restore the file")
    return length
