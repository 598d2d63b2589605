"""The logs of a training: one or several, of any format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from jepa_mpc.errors import choose
from jepa_mpc.trajectories.actions import ACTION_PARTS, ActionPart, action_part
from jepa_mpc.trajectories.bank import FrameBank, load_bank
from jepa_mpc.trajectories.cache import CacheOptions, told
from jepa_mpc.trajectories.episode import SOUND
from jepa_mpc.trajectories.mixture import MixedBank, mixed
from jepa_mpc.trajectories.resizing import PictureFit
from jepa_mpc.trajectories.robot_adapter import RobotAdapter
from jepa_mpc.trajectories.robots import ROBOTS, robot_map
from jepa_mpc.trajectories.stats import action_stats, proprio_stats

MAX_YAML = 1 << 20
SOURCE = ("path", "weight", "robot", "cameras", "format", "leave_out", "place")


@dataclass(frozen=True, kw_only=True)
class LogSource:
    """One log of a training.

    Args:
        path: The log, or a finished cache.
        options: Options of this log.
        weight: Relative probability that a window comes from it.
        place: Folder of its cache; beside the log by default.
    """

    path: Path
    options: CacheOptions
    weight: float = 1.0
    place: Path | None = None


def sources_of(cfg: DictConfig) -> list[LogSource]:
    """The logs in `data`: a path, or a list of paths and of entries with a path and their own options.

    Raises:
        ValueError: If an entry has another form.
    """
    data: Any = OmegaConf.to_container(cfg, resolve=True)["data"]  # type: ignore[index, call-overload]
    entries = data if isinstance(data, list) else [data]
    if not entries:
        raise ValueError("data names no log: data=FOLDER, or data=[{path: FOLDER, weight: 2}, FOLDER]")
    found = []
    for entry in entries:
        own = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(own, Mapping) or "path" not in own or not own.keys() <= set(SOURCE):
            raise ValueError(f"an entry of data is a path, or has a path and some of {', '.join(SOURCE[1:])}: {entry}")
        found.append(_source(cfg, own))
    return found


def open_sources(cfg: DictConfig) -> FrameBank | MixedBank:
    """Open the replay buffer of a training.

    Raises:
        BadEpisode: If a log is damaged.
        UnknownName: If an action part or a format is unknown.
        ValueError: If a log lacks a requested field, or logs are incompatible.
    """
    part, sources = part_of(cfg.actions), sources_of(cfg)
    workers = int(cfg.ingest.workers)
    banks = [
        load_bank(one.path, actions=part, options=one.options, place=one.place, workers=workers, progress=_bar)
        for one in sources
    ]
    height, width = banks[0].picture
    if height != width:
        raise ValueError(f"{sources[0].path} has images of {height} x {width}: pass image_size=... to make them square")
    seen = [replace(bank, skip=int(cfg.skip), blocks=cfg.blocks) for bank in banks]
    return mixed(seen, [one.weight for one in sources])


def check_sound(bank: FrameBank | MixedBank, rate: int, *, contiguous: bool) -> None:
    """Refuse logs whose sound does not fit a system.

    Args:
        bank: The replay buffer.
        rate: Samples per second that the system takes.
        contiguous: Whether the steps of a window are consecutive.

    Raises:
        ValueError: If a log has no sound or another sample rate, or windows skip steps.
    """
    for one in bank.banks if isinstance(bank, MixedBank) else (bank,):
        if SOUND not in one.extras:
            raise ValueError("the log has no field 'sound': record one with collect.py task=push sound={}")
        found = one.extras[SOUND].shape[1] / one.dt_s
        if round(found) != rate:
            raise ValueError(
                f"the log has {found:.0f} samples per second, the system takes {rate}: give system.rate={found:.0f}"
            )
    if not contiguous:
        raise ValueError("sound needs consecutive steps: pass skip=1 max_stride=1")


def check_input(bank: FrameBank | MixedBank, name: str) -> None:
    """Refuse logs that lack what a system encodes; the images of a folder of clouds or sounds only picture them.

    Raises:
        ValueError: Names the field and how to record it.
    """
    for one in bank.banks if isinstance(bank, MixedBank) else (bank,):
        kind = one.origin.get("source", {}).get("format")
        if name == "frames" and kind in ("clouds", "sounds"):
            raise ValueError(f"a folder of {kind} has no images to learn from: take a system for {kind}")
        if name != "frames" and name not in one.extras:
            raise ValueError(f"the log has no field {name!r}: record one with collect.py task=push {name}={{}}")


def part_of(actions: Any) -> ActionPart:
    """The action part by name, or by name with arguments.

    Raises:
        UnknownName: If there is no such action part.
        ValueError: If it does not accept an argument.
    """
    if isinstance(actions, str):
        return choose(ACTION_PARTS, actions, "action part")()
    entries: Any = OmegaConf.to_container(actions) if isinstance(actions, DictConfig) else actions
    return action_part(entries)


def robot_entries(robot: Any) -> dict[str, Any]:
    """The entries of a robot map: a name of `ROBOTS`, a YAML file, or the entries themselves.

    Raises:
        UnknownName: If it is neither a file nor a known robot.
        ValueError: If there is no such file, or it does not hold entries of a robot map.
    """
    if robot is None:
        return {}
    if isinstance(robot, str):
        if not robot.endswith((".yaml", ".yml")):
            return choose(ROBOTS, robot, "robot (or name a .yaml file)").to_dict()
        if not Path(robot).is_file():
            raise ValueError(f"robot={robot}: no such file; inspect_logs.py writes a template")
        robot = _entries_in(Path(robot))
    if not isinstance(robot, Mapping):
        raise ValueError(f"a robot map is a list of entries such as position: ..., got {robot!r}")
    return {str(key): value for key, value in robot.items()}


def _entries_in(path: Path) -> Any:
    """What a small YAML file holds; aliases, which can grow without end, are refused."""
    try:
        if path.stat().st_size > MAX_YAML:
            raise ValueError(f"it has more than {MAX_YAML} bytes")
        text = path.read_text(encoding="utf-8")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ValueError("it repeats entries by aliases (*name)")
        return OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"robot={path} is no list of entries of a robot map: {reason}") from error


def adapter_of(cfg: DictConfig, bank: FrameBank | MixedBank) -> RobotAdapter:
    """The robot adapter for the checkpoint; of several logs the first one defines it."""
    return RobotAdapter(
        robot=robot_map(bank.origin["robot"]),
        actions=part_of(cfg.actions),
        picture=PictureFit(**bank.origin["picture"]),
        cameras=bank.cameras,
        step_s=bank.step_s,
        skip=int(cfg.skip),
        blocks=cfg.blocks,
        statistics={"actions": action_stats(bank), "proprio": proprio_stats(bank)},
    )


def _source(cfg: DictConfig, own: Mapping[str, Any]) -> LogSource:
    cameras = own.get("cameras", cfg.cameras)
    options = CacheOptions(
        cameras=None if cameras is None else tuple(cameras),
        image_size=cfg.image_size,
        aspect=cfg.ingest.aspect,
        robot=told(robot_entries(own.get("robot", OmegaConf.to_container(cfg)["robot"]))),  # type: ignore[index, call-overload]
        format=own.get("format", cfg.ingest.format),
        leave_out=tuple(own.get("leave_out", cfg.ingest.leave_out)),
    )
    place = own.get("place", cfg.ingest.place)
    return LogSource(
        path=Path(own["path"]), options=options, weight=float(own.get("weight", 1.0)),
        place=None if place is None else Path(place),
    )  # fmt: skip


def _bar(episodes: Iterable[int]) -> Iterable[int]:
    return tqdm(episodes, unit="episode", desc="ingesting")
