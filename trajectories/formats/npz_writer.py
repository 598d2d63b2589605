"""Writes any log in the npz format: an .npz file per episode, numbered without a gap, and a manifest at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jepa_mpc.files import Json, atomic_folder, write_json
from jepa_mpc.trajectories.checksums import file_sha256
from jepa_mpc.trajectories.episode import COLUMNS, EXTRAS, IMAGES, Episode, validate
from jepa_mpc.trajectories.formats.base import Log, blocks, fault
from jepa_mpc.trajectories.formats.npz import FORMAT_VERSION, MANIFEST, episode_file, episode_path


def write_npz(log: Log, folder: Path, *, progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> Path:
    """Write any log that has the columns of the schema; the folder appears whole or not at all.

    Raises:
        BadEpisode: If a column of the schema is missing, or an episode is damaged.
        OSError: If the disk is full; nothing remains under the name.
    """
    names = [name for name in log.fields if name.startswith(IMAGES) or name in COLUMNS or name in EXTRAS]
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        remedy = "say which columns it is made of: robot.hz=... for times, robot.position=... for poses"
        raise fault(log.path, field=missing[0], problem="is not in this log", remedy=remedy)
    with atomic_folder(folder) as draft:
        for index in progress(range(len(log.lengths))):
            _write_episode(episode_path(draft, index), log, index, names)
        write_manifest(draft, dict(enumerate(log.lengths)), {"converted_from": log.format})
    return folder


def write_manifest(folder: Path, lengths: Mapping[int, int], facts: Mapping[str, Any]) -> None:
    """Mark the log as complete: number, length and SHA-256 of every episode, and how it was made.

    Raises:
        OSError: If the disk is full or the folder cannot be written.
    """
    episodes: list[Json] = [
        {"file": path.name, "length": lengths[index], "sha256": file_sha256(path)}
        for index in sorted(lengths)
        for path in [episode_path(folder, index)]
    ]
    write_json(folder / MANIFEST, {"format": "npz", "format_version": FORMAT_VERSION, **facts, "episodes": episodes})


def _write_episode(path: Path, log: Log, index: int, names: list[str]) -> None:
    """One episode: its numbers at once, its pictures block by block."""
    length = log.lengths[index]
    pictures = [name for name in names if name.startswith(IMAGES)]
    arrays = log.read(index, 0, length, [name for name in names if name not in pictures])
    facts = {**log.metadata(index), "cameras": list(log.cameras), "dt_s": log.dt_s}
    stand_ins = {name: np.broadcast_to(np.uint8(0), (length, *log.fields[name].shape)) for name in pictures}
    validate(Episode(arrays={**stand_ins, **arrays}, metadata=facts), f"episode {index} of {log.path.name}")
    with episode_file(path, facts) as write:
        for name in names:
            if name in arrays:
                write(name, arrays[name].shape, arrays[name].dtype, [arrays[name]])
            else:
                rows = (block[name] for block in blocks(log, index, [name]))
                write(name, stand_ins[name].shape, stand_ins[name].dtype, rows)
