"""Log formats, one file each, all behind the EpisodeStore protocol; `open_log` detects the format of a path."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa_mpc.errors import choose
from jepa_mpc.trajectories.formats.apart import Send
from jepa_mpc.trajectories.formats.base import Log, fault
from jepa_mpc.trajectories.formats.clips import ClipsReader, find_clips
from jepa_mpc.trajectories.formats.cloud_folder import CloudFolderReader
from jepa_mpc.trajectories.formats.droid import TABLE, DroidReader, find_episodes
from jepa_mpc.trajectories.formats.films import FilmsReader, find_tables
from jepa_mpc.trajectories.formats.folders import files_below
from jepa_mpc.trajectories.formats.h5 import member_of, names_of, read_h5
from jepa_mpc.trajectories.formats.hdf5 import Hdf5Reader
from jepa_mpc.trajectories.formats.lerobot import open_lerobot
from jepa_mpc.trajectories.formats.lerobot_features import INFO
from jepa_mpc.trajectories.formats.lerobot_writer import write_lerobot
from jepa_mpc.trajectories.formats.mcap import McapReader
from jepa_mpc.trajectories.formats.minari import MAIN, MinariReader
from jepa_mpc.trajectories.formats.npz import NpzStore
from jepa_mpc.trajectories.formats.npz_writer import write_npz
from jepa_mpc.trajectories.formats.ogbench import OgbenchReader, is_ogbench
from jepa_mpc.trajectories.formats.picture_folder import PictureFolderReader
from jepa_mpc.trajectories.formats.robomimic import RobomimicReader, write_robomimic
from jepa_mpc.trajectories.formats.sound_folder import SoundFolderReader
from jepa_mpc.trajectories.guards import no_log


@dataclass(frozen=True)
class Format:
    """A log format.

    Args:
        reader: Opens a log.
        lies_at: Whether the path has this format, judged by file names.
        sign: The file names that identify it, for messages.
        write: Writes any log, `write(log, path, *, progress=iter)`, where `progress` wraps the numbers of the episodes;
            None for formats that are only read.
    """

    reader: Callable[[Path], Log]
    lies_at: Callable[[Path], bool]
    sign: str
    write: Callable[..., Path] | None = None

    def __call__(self, path: Path) -> Log:
        """Open a log."""
        return self.reader(path)


def _has(*patterns: str) -> Callable[[Path], bool]:
    return lambda path: path.is_dir() and any(any(path.glob(pattern)) for pattern in patterns)


def _file_or_folder(*suffixes: str) -> Callable[[Path], bool]:
    inside = _has(*(f"*{suffix}" for suffix in suffixes))
    return lambda path: path.suffix in suffixes if path.is_file() else inside(path)


def _has_demonstrations(path: Path) -> bool:
    if not path.is_file() or path.suffix not in HDF5:
        return False

    def read(file: Any, send: Send) -> bool:
        return "data" in file and bool(names_of(member_of(file, "data", where=path, field="data"), "demo", path))

    return bool(read_h5(path, read)[0])


def _below(path: Path, suffixes: Sequence[str]) -> bool:
    return path.is_dir() and bool(files_below(path, suffixes))


def _holds_ogbench(path: Path) -> bool:
    return path.suffix == ".npz" if path.is_file() else any(map(is_ogbench, path.glob("*.npz")))


HDF5 = (".h5", ".hdf5")

FORMATS: dict[str, Format] = {
    "npz": Format(NpzStore, _has("episode_*.npz"), "episode_*.npz", write_npz),
    "lerobot": Format(open_lerobot, lambda path: os.path.lexists(path / INFO), INFO, write_lerobot),
    "minari": Format(MinariReader, lambda path: os.path.lexists(path / MAIN), MAIN),
    "ogbench": Format(OgbenchReader, _holds_ogbench, "*.npz"),
    "mcap": Format(McapReader, _file_or_folder(".mcap"), "*.mcap"),
    "droid": Format(DroidReader, lambda path: path.is_dir() and bool(find_episodes(path)), TABLE),
    "robomimic": Format(RobomimicReader, _has_demonstrations, "*.hdf5", write_robomimic),
    "hdf5": Format(Hdf5Reader, _file_or_folder(*HDF5), "*.h5"),
    "films": Format(FilmsReader, lambda path: path.is_dir() and bool(find_tables(path)), "videos with tables"),
    "clips": Format(ClipsReader, lambda path: path.is_dir() and bool(find_clips(path)), "films"),
    "pictures": Format(PictureFolderReader, lambda path: _below(path, PictureFolderReader.suffixes), "pictures"),
    "clouds": Format(CloudFolderReader, lambda path: _below(path, CloudFolderReader.suffixes), "point clouds"),
    "sounds": Format(SoundFolderReader, lambda path: _below(path, SoundFolderReader.suffixes), "sounds"),
}
"""Name -> format, in the order in which `detect` tries them."""

WRITERS: dict[str, Callable[..., Path]] = {name: kind.write for name, kind in FORMATS.items() if kind.write}
"""Name -> function that writes any log in this format."""


def detect(path: str | Path) -> str:
    """The name in `FORMATS` of the log at a path.

    Raises:
        BadEpisode: If the path does not exist or has no known format; lists the file names that were tried.
    """
    path = Path(path)
    if not path.exists():
        raise no_log(path)
    for name, kind in FORMATS.items():
        if kind.lies_at(path):
            return name
    sought = ", ".join(kind.sign for kind in FORMATS.values())
    raise fault(
        path, field="format", problem="is none that is known", remedy=f"looked for {sought}; or give format=..."
    )


def open_log(path: str | Path, *, format: str | None = None) -> Log:  # noqa: A002
    """Open a log with the reader of its format.

    Args:
        path: A folder or file.
        format: Its format; detected by default.

    Raises:
        BadEpisode: If it is unknown or damaged.
        UnknownName: If there is no such format.
        MissingPackage: If the format needs a package that is not installed.
    """
    return choose(FORMATS, format or detect(path), "log format")(Path(path))
