"""Log formats: one file each, all behind the EpisodeStore protocol; `open_log` finds out which one lies before it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from jepa_mpc.errors import choose
from jepa_mpc.trajectories.formats.base import Log, fault
from jepa_mpc.trajectories.formats.clips import ClipsReader, find_clips
from jepa_mpc.trajectories.formats.cloud_folder import CloudFolderReader
from jepa_mpc.trajectories.formats.droid import DroidReader, find_episodes
from jepa_mpc.trajectories.formats.films import FilmsReader, find_tables
from jepa_mpc.trajectories.formats.folders import files_below
from jepa_mpc.trajectories.formats.h5 import member_of, names_of, open_h5
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
from jepa_mpc.trajectories.guards import no_log

FORMATS: dict[str, Callable[[Path], Log]] = {
    "npz": NpzStore,
    "lerobot": open_lerobot,
    "droid": DroidReader,
    "robomimic": RobomimicReader,
    "minari": MinariReader,
    "ogbench": OgbenchReader,
    "hdf5": Hdf5Reader,
    "films": FilmsReader,
    "clips": ClipsReader,
    "mcap": McapReader,
    "clouds": CloudFolderReader,
    "pictures": PictureFolderReader,
}
WRITERS: dict[str, Callable[..., Path]] = {
    "npz": write_npz,
    "lerobot": write_lerobot,
    "robomimic": write_robomimic,
}


def detect(path: str | Path) -> str:
    """The name in `FORMATS` of the log that lies at a path.

    Raises:
        BadEpisode: If there is nothing, or nothing that is known; tells what was looked for.
    """
    path = Path(path)
    if path.is_file():
        kind = {".mcap": "mcap", ".h5": "hdf5", ".hdf5": "hdf5", ".npz": "ogbench"}.get(path.suffix)
        if kind == "hdf5" and _has_demonstrations(path):
            return "robomimic"
        if kind:
            return kind
    elif path.is_dir():
        for name, marks in _MARKS.items():
            if marks(path):
                return name
    else:
        raise no_log(path)
    sought = (
        "episode_*.npz, meta/info.json, data/main_data.hdf5, trajectory.h5, *.hdf5, *.mcap, films, pictures, or clouds"
    )
    raise fault(
        path, field="format", problem="is none that is known", remedy=f"looked for {sought}; or give format=..."
    )


def open_log(path: str | Path, *, format: str | None = None) -> Log:  # noqa: A002
    """The reader of a log.

    Args:
        path: A folder or file.
        format: Its format; found out by default.

    Raises:
        BadEpisode: If it is unknown or damaged.
        UnknownName: If there is no such format.
        MissingPackage: If the format needs a package that is not installed.
    """
    return choose(FORMATS, format or detect(path), "log format")(Path(path))


def _has_demonstrations(path: Path) -> bool:
    with open_h5(path) as file:
        return "data" in file and bool(names_of(member_of(file, "data", where=path, field="data"), "demo", path))


_MARKS: dict[str, Callable[[Path], bool]] = {
    "npz": lambda path: any(path.glob("episode_*.npz")),
    "lerobot": lambda path: os.path.lexists(path / INFO),
    "minari": lambda path: os.path.lexists(path / MAIN),
    "ogbench": lambda path: any(map(is_ogbench, path.glob("*.npz"))),
    "mcap": lambda path: any(path.glob("*.mcap")),
    "droid": lambda path: bool(find_episodes(path)),
    "hdf5": lambda path: any(path.glob("*.hdf5")) or any(path.glob("*.h5")),
    "films": lambda path: bool(find_tables(path)),
    "clips": lambda path: bool(find_clips(path)),
    "pictures": lambda path: bool(files_below(path, PictureFolderReader.suffixes)),
    "clouds": lambda path: bool(files_below(path, CloudFolderReader.suffixes)),
}
