"""Defaults of each system for the reaching experiment: checkpoint, planner and settings."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from jepa_mpc.errors import choose
from jepa_mpc.places import CONFIGS

FOLDER = CONFIGS / "reaching"
SHIPPED = "shipped"


def system_name(cfg: DictConfig) -> str | None:
    """The recipe name of the system in `system=NAME`; None without that option."""
    system = cfg.get("system")
    return None if system is None else str(system["_target_"])


def given_options() -> list[str]:
    """Names of the options on the command line; empty where no command runs."""
    if not HydraConfig.initialized():
        return []
    return [word.lstrip("+~").partition("=")[0] for word in HydraConfig.get().overrides.task]


def adapted(cfg: DictConfig, checkpoints: Path, *, given: Collection[str]) -> DictConfig:
    """The options, with the system's defaults for those that were not given.

    Args:
        cfg: The options.
        checkpoints: Folder of the shipped checkpoints.
        given: Options on the command line, which stay.

    Raises:
        UnknownName: If the experiment has no defaults for that system.
        ValueError: If no checkpoint is given and none is shipped.
    """
    name = system_name(cfg)
    if name is None or name == "leworldmodel":
        return cfg
    known = {path.stem: path for path in FOLDER.glob("*.yaml")}
    brought = OmegaConf.load(choose(known, name, "system that reaches"))
    cfg = cfg.copy()
    for key, value in brought.items():
        if key != SHIPPED and key not in given:
            with open_dict(cfg):
                cfg[key] = value
    if not cfg.checkpoint:
        shipped = checkpoints / str(brought[SHIPPED])
        if not shipped.exists():
            raise ValueError(
                f"no checkpoint of {name} is shipped: train one (docs/systems/{name}.md) and give checkpoint=FOLDER, "
                "or checkpoint=FILE.pt for the authors' weights"
            )
        cfg.checkpoint = str(shipped)
    return cfg
