"""Turn a log of any known format into another: `python experiments/convert.py source=logs/reach to=logs/lerobot`."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from jepa_mpc.errors import BadEpisode, MissingPackage, UnknownName, choose
from jepa_mpc.face.command_line import check_complete
from jepa_mpc.places import CONFIGS
from jepa_mpc.trajectories.formats import WRITERS, open_log
from jepa_mpc.trajectories.robots import MappedLog, chosen_map


def convert(cfg: DictConfig) -> Path:
    """Read the source and write the target atomically.

    Raises:
        BadEpisode: If the source is damaged.
        FileExistsError: If the target exists.
        UnknownName: If there is no such format, or it cannot be written.
    """
    write = choose(WRITERS, cfg.format, "format to write")
    target = Path(cfg.to)
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise FileExistsError(f"{target} already exists: choose a new path")
    reader = open_log(Path(cfg.source), format=cfg.source_format)
    log = MappedLog(reader, robot=chosen_map(reader, OmegaConf.to_container(cfg.robot, resolve=True)))
    options = {"frames": cfg.frames} if cfg.format == "lerobot" else {}
    return write(log, target, progress=lambda items: tqdm(items, unit="episode", desc="writing"), **options)


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="convert")
def main(cfg: DictConfig) -> None:
    """Convert, and print a summary."""
    check_complete(cfg, name="convert")
    try:
        written = open_log(convert(cfg))
    except (BadEpisode, UnknownName, MissingPackage, ValueError, OSError) as error:
        sys.exit(f"convert: {error}")
    print(f"{cfg.to}: {len(written.lengths)} episodes, {sum(written.lengths)} observations ({written.format})")
