"""Turn a log of any format into a cache: `python experiments/ingest.py path=logs/lerobot image_size=64 workers=2`.

It can be stopped at any time; the same command resumes it. `train.py` makes the same cache if it is missing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from jepa_mpc.errors import BadEpisode, MissingPackage, UnknownName
from jepa_mpc.face.command_line import Stopped, check_complete
from jepa_mpc.face.training.log_sources import robot_entries
from jepa_mpc.places import CONFIGS
from jepa_mpc.trajectories.cache import Cache, CacheOptions, told
from jepa_mpc.trajectories.ingest import ingest


def make(cfg: DictConfig) -> Cache:
    """The cache of the log that the options name.

    Raises:
        BadEpisode: If an episode is damaged, or an image of the finished cache is.
        ValueError: If the log lacks what the options ask for.
        OSError: If the disk is full.
    """
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    options = CacheOptions(
        cameras=None if plain["cameras"] is None else tuple(plain["cameras"]),
        image_size=plain["image_size"],
        aspect=plain["aspect"],
        robot=told(robot_entries(plain["robot"])),
        format=plain["format"],
        leave_out=tuple(plain["leave_out"]),
    )
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cache = ingest(plain["path"], options=options, place=plain["out"], workers=plain["workers"], progress=_bar)
    if plain["check"]:
        cache.check(lambda episodes: tqdm(episodes, unit="episode", desc="checking"))
    return cache


def _bar(episodes: Iterable[int]) -> Iterable[int]:
    return tqdm(episodes, unit="episode", desc="ingesting")


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="ingest")
def main(cfg: DictConfig) -> None:
    """Ingest, and print a summary."""
    check_complete(cfg, name="ingest")
    try:
        cache = make(cfg)
    except (BadEpisode, UnknownName, MissingPackage, ValueError, TypeError, OSError) as error:
        sys.exit(f"ingest: {error}")
    except KeyboardInterrupt as stop:
        raise Stopped("early: finished episodes are kept; run the same command to resume") from stop
    height, width = cache.index["picture"]
    size = sum(entry["bytes"] for entry in cache.index["files"].values()) / 1e9
    print(
        f"{Path(cache.path)}: {len(cache)} episodes, {sum(cache.lengths)} steps of {cache.dt_s:.4g} s, "
        f"{', '.join(cache.cameras)} at {height} x {width} px, {size:.2f} GB"
    )
