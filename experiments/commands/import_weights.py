"""Released weights of a world model as a checkpoint: `jepa-mpc import-weights model=leworldmodel hub=PLACE to=FOLDER`.

The folder works like a checkpoint of our own: for planning (`reach checkpoint=FOLDER agent=simple`), serving and
robots.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from jepa_mpc.errors import BadCheckpoint, BadEpisode, MissingPackage, UnknownName
from jepa_mpc.face.command_line import check_complete
from jepa_mpc.face.importing import LAB_DT_S, ReleasedFiles, RobotSide, import_weights, statistics_in
from jepa_mpc.face.training.log_sources import part_of, robot_entries
from jepa_mpc.places import CONFIGS
from jepa_mpc.trajectories.bank import load_bank
from jepa_mpc.trajectories.cache import CacheOptions, told
from jepa_mpc.trajectories.robots import robot_map
from jepa_mpc.trajectories.stats import action_stats
from jepa_mpc.world_model.dynamics.model import WorldModel

MISTAKES = (BadCheckpoint, BadEpisode, MissingPackage, UnknownName, ValueError, OSError)


def import_released(cfg: DictConfig) -> WorldModel:
    """Read the weights and write the checkpoint.

    Raises:
        BadCheckpoint: If the weights cannot be read or do not fit the robot.
        BadEpisode: If the log is damaged.
        ValueError: If options contradict each other.
    """
    files = ReleasedFiles(
        hub=cfg.hub,
        encoder=cfg.dinov2,
        window=int(cfg.window),
        heads=cfg.heads.predictor,
        encoder_heads=cfg.heads.encoder,
    )
    return import_weights(str(cfg.model), files, robot_side(cfg), str(cfg.to))


def robot_side(cfg: DictConfig) -> RobotSide:
    """The robot from the options: from its log, or from its own map and a statistics file.

    Raises:
        ValueError: If both a log and a statistics file are given.
    """
    if cfg.data and cfg.statistics:
        raise ValueError("data= and statistics= both tell the statistics of the actions: give one")
    part = part_of(cfg.actions)
    entries: dict[str, Any] = robot_entries(OmegaConf.to_container(cfg)["robot"])  # type: ignore[index, call-overload]
    side = RobotSide(
        cameras=tuple(cfg.cameras) if cfg.cameras else ("left",),
        robot=robot_map({name: value for name, value in entries.items() if value is not None}) if entries else None,
        actions=part,
        dt_s=LAB_DT_S if cfg.dt_s is None else float(cfg.dt_s),
        statistics=statistics_in(cfg.statistics) if cfg.statistics else None,
        image_size=cfg.image_size,
    )
    if not cfg.data:
        return side
    options = CacheOptions(cameras=tuple(cfg.cameras) if cfg.cameras else None, robot=told(entries))
    bank = load_bank(Path(cfg.data), actions=part, options=options, progress=_bar)
    found = replace(side, cameras=bank.cameras, statistics=action_stats(bank))
    found = found if cfg.dt_s is not None else replace(found, dt_s=bank.step_s)
    return replace(found, robot=robot_map(bank.origin["robot"])) if bank.origin["embodiment"] == "" else found


def _bar(episodes: Iterable[int]) -> Iterable[int]:
    return tqdm(episodes, unit="episode", desc="ingesting")


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="import_weights")
def main(cfg: DictConfig) -> None:
    """Import, and print the inputs and outputs of the checkpoint."""
    check_complete(cfg, name="import_weights")
    try:
        model = import_released(cfg)
    except MISTAKES as error:
        sys.exit(f"import_weights: {error}")
    known = model.interface
    print(f"{cfg.to}: {cfg.model} {model.fingerprint}, cameras {', '.join(known.cameras)} at {known.image_size} px,")
    print(f"  {len(known.actions)} numbers every {known.dt_s:g} s ({model.steps_per_action} of the robot's actions)")
