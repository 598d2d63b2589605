"""Validation of training options, before any work begins."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from jepa_mpc.errors import UnknownName, choose
from jepa_mpc.face.training.distributed import LAYOUTS
from jepa_mpc.face.training.recorders import RECORDERS
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.training.loop import FitSettings

COUNTS = {"threads": 1, "skip": 1, "window": 1, "max_stride": 1, "batch": 1, "probe": 2}
BEST = {"loss": "held/loss", "hand": "probe/hand_median_cm", "reach": "reach/median_cm"}
CHOICES = {
    "resume": ("auto", "never"),
    "compile": ("none", "default", "reduce-overhead", "max-autotune"),
    "on_collapse": ("stop", "warn"),
    "best": tuple(BEST),
}


def check_options(cfg: DictConfig) -> None:
    """Refuse invalid options.

    Raises:
        UnknownName: If a layout or recorder is unknown.
        ValueError: If an option has the wrong type or is out of range; names it.
    """
    for name, least in COUNTS.items():
        _count(name, cfg[name], least)
    _count("seed", cfg.seed, -math.inf)
    for name, known in CHOICES.items():
        if cfg[name] not in known:
            raise ValueError(f"{name} must be {', '.join(known[:-1])} or {known[-1]}, got {cfg[name]!r}")
    if type(cfg.validation) not in (int, float) or not 0 <= cfg.validation < 1:
        raise ValueError(f"validation must be from 0 to 1, got {cfg.validation!r}")
    choose(LAYOUTS, str(cfg.parallel), "parallel")
    for name in ("recorders", "freeze"):
        if not OmegaConf.is_list(cfg[name]) or not all(isinstance(entry, str) for entry in cfg[name]):
            raise ValueError(f"{name} must be a list of names, got {cfg[name]!r}")
    for name in cfg.recorders:
        choose(RECORDERS, str(name), "recorder")
    _count("watch.every", cfg.watch.every, 0)
    _count("watch.frames", cfg.watch.frames, 2)
    if cfg.best == "reach" and cfg.get("evaluate") is None:
        raise ValueError("best=reach needs evaluate=reach")
    if not cfg.out or (Path(str(cfg.out)).exists() and not Path(str(cfg.out)).is_dir()):
        raise ValueError(f"out must be a folder, got {cfg.out!r}")


def fit_settings(cfg: DictConfig) -> FitSettings:
    """The fit settings: `fit` with its parts built, and the interval of the collapse check.

    Raises:
        ValueError: If a setting or part is unknown, missing or out of range.
    """
    facts = {str(name): _part(str(name), value) for name, value in _plain(cfg.fit).items()}
    betas = facts.get("betas", (0.9, 0.999))
    if not isinstance(betas, list | tuple):
        raise ValueError(f"fit.betas must be two numbers, got {betas!r}")
    try:
        return FitSettings(**{**facts, "betas": tuple(betas), "watch_every": int(cfg.watch.every)})
    except TypeError as error:
        raise ValueError(f"fit: {error}") from error
    except ValueError as error:
        raise ValueError(f"fit.{error}") from error


def _plain(cfg: DictConfig) -> dict[Any, Any]:
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return plain


def _part(name: str, spec: Any) -> Any:
    """A setting, built if it is a part."""
    try:
        return assemble(spec)
    except (TypeError, ValueError, UnknownName) as error:
        raise ValueError(f"fit.{name}: {error}") from error


def _count(name: str, value: Any, least: float) -> None:
    if type(value) is not int or value < least:
        said = "" if least == -math.inf else f" from {least}"
        raise ValueError(f"{name} must be a whole number{said}, got {value!r}")
