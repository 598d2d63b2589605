"""Import of released world-model weights into checkpoints, which plan in labs and drive robots like any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa_mpc.encoders.adapters.hub import resolve
from jepa_mpc.errors import BadCheckpoint, choose
from jepa_mpc.plain_json import read_json_file
from jepa_mpc.trajectories.actions import ActionPart, PoseDelta, action_names
from jepa_mpc.trajectories.checksums import file_sha256
from jepa_mpc.trajectories.episode import EE_POSE, GRIPPER
from jepa_mpc.trajectories.resizing import PictureFit
from jepa_mpc.trajectories.robot_adapter import RobotAdapter
from jepa_mpc.trajectories.robots import ROBOTS, RobotMap
from jepa_mpc.trajectories.stats import Stats
from jepa_mpc.world_model.adapters import dino_wm, lewm, vjepa2_ac_files
from jepa_mpc.world_model.checkpoints.loader import load_world_model, save_world_model
from jepa_mpc.world_model.dynamics.model import Interface, WorldModel
from jepa_mpc.world_model.parts.actions import ActionScale
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from jepa_mpc.world_model.parts.poses import ArmPose, HandPose

LAB_DT_S = 0.24
"""Time step of our labs (s)."""

SPREAD = 3.0
"""Planning range in standard deviations around the mean action, where no extremes are known."""

AUTHORS_BOUNDS = (0.075, 0.075, 0.075, 0.0, 0.0, 0.0, 0.75)
"""Largest motion per step in V-JEPA 2-AC's own planner (m, rad, gripper)."""


@dataclass(frozen=True, kw_only=True)
class ReleasedFiles:
    """Released weights, and facts that they do not contain.

    Args:
        hub: A file or folder, or a name of the Hugging Face Hub.
        encoder: DINO-WM: location of its DINOv2, if the file holds none.
        window: DINO-WM: number of frames that one prediction uses.
        heads: Attention heads of the predictor, if different from the release.
        encoder_heads: Attention heads of the encoder, if different from the release.
    """

    hub: str | Path
    encoder: str | Path | None = None
    window: int = dino_wm.WINDOW
    heads: int | None = None
    encoder_heads: int | None = None


@dataclass(frozen=True, kw_only=True)
class RobotSide:
    """The robot that an imported world model shall control.

    Args:
        cameras: Names of the cameras, in stacking order.
        robot: Meaning of its columns; None for the simulated arms of our labs.
        actions: What counts as one of its actions.
        dt_s: Seconds per action.
        statistics: Statistics of its single actions, in the log that the model was trained on or should match.
        image_size: Side (px) of the model's input images; by default its own. Positional embeddings are interpolated.
    """

    cameras: tuple[str, ...] = ("left",)
    robot: RobotMap | None = None
    actions: ActionPart = field(default_factory=PoseDelta)
    dt_s: float = LAB_DT_S
    statistics: Stats | None = None
    image_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Read:
    """A released model after reading.

    Args:
        objective: The network.
        system: The configuration that builds it.
        action_dim: Width of one of its actions.
        image_size: Side (px) of its training images.
        bounds: Largest size of each action entry, where the authors state it.
    """

    objective: DynamicsObjective
    system: Mapping[str, Any]
    action_dim: int
    image_size: int
    bounds: tuple[float, ...] | None = None


def import_weights(model: str, files: ReleasedFiles, side: RobotSide, to: str | Path) -> WorldModel:
    """Write released weights as a checkpoint folder, and load it.

    Args:
        model: A name of `MODELS`.
        files: The weights.
        side: The robot.
        to: The folder; replaced atomically.

    Raises:
        UnknownName: If there is no such model.
        BadCheckpoint: If the weights cannot be read, are another model's, or do not fit the robot.
    """
    read = choose(MODELS, model, "released world model")
    place = resolve(files.hub, wanted_by=model)
    try:
        found = read(place, files, side)
        adapter = _adapter(found, side)
        interface = Interface(
            cameras=side.cameras,
            image_size=side.image_size or found.image_size,
            actions=action_names(side.actions, found.action_dim),
            dt_s=adapter.step_s,
            log=f"released weights of {model}, {place.name}",
            robot=adapter.to_dict(),
        )
    except BadCheckpoint:
        raise
    except ValueError as error:
        raise BadCheckpoint(f"{place}: {error}") from error
    training = {
        "statistics": {name: one.to_dict() for name, one in adapter.statistics.items()},
        "released": {"model": model, "files": _hashes(place)},
    }
    save_world_model(to, found.objective, system=found.system, interface=interface, training=training)
    return load_world_model(to)


def statistics_in(file: str | Path) -> Stats:
    """Action statistics from a JSON file: lists `mean` and `std`, and `low` and `high` if known.

    Raises:
        BadCheckpoint: If it cannot be read or the lengths differ.
    """
    try:
        value = read_json_file(file)
        mean, std = (torch.tensor(value[name], dtype=torch.float32) for name in ("mean", "std"))
        low = torch.tensor(value["low"], dtype=torch.float32) if "low" in value else mean - SPREAD * std
        high = torch.tensor(value["high"], dtype=torch.float32) if "high" in value else mean + SPREAD * std
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise BadCheckpoint(f"{file} should hold lists of numbers, mean and std of the actions: {error}") from error
    if len({one.shape for one in (mean, std, low, high)}) > 1 or mean.dim() != 1:
        raise BadCheckpoint(f"{file}: mean, std, low and high must be lists of one length")
    return Stats(mean=mean, std=std, low=low, high=high)


def _read_lewm(place: Path, files: ReleasedFiles, side: RobotSide) -> Read:
    objective = lewm.load_released(place, actions=_scale(side, "LeWorldModel"))
    network: Any = objective
    return Read(
        objective=objective,
        system=lewm.system_of(objective),
        action_dim=network.predictor.action_encoder.smooth.in_features,
        image_size=network.encoder.encoder.sizes.image,
    )


def _read_dino_wm(place: Path, files: ReleasedFiles, side: RobotSide) -> Read:
    objective, system = dino_wm.load_released(
        place,
        encoder=files.encoder,
        heads=files.heads,
        encoder_heads=files.encoder_heads,
        window=files.window,
        actions=_scale(side, "DINO-WM"),
    )
    if side.image_size is not None:
        raise BadCheckpoint("DINO-WM predicts a fixed number of patches: omit image_size")
    patch = system["encoder"]["sizes"]["patch"]
    return Read(objective=objective, system=system, action_dim=system["action_dim"], image_size=system["side"] * patch)


def _read_vjepa2_ac(place: Path, files: ReleasedFiles, side: RobotSide) -> Read:
    patches = {} if side.image_size is None else {"side": side.image_size // 16}
    objective = vjepa2_ac_files.load_objective(
        place,
        heads=files.heads,
        encoder_heads=files.encoder_heads,
        reader=ArmPose() if side.robot is None else HandPose(),
        **patches,
    )
    prepare: Any = objective.preprocess
    return Read(
        objective=objective,
        system=vjepa2_ac_files.system_of(objective),
        action_dim=len(AUTHORS_BOUNDS),
        image_size=int(prepare.size),
        bounds=AUTHORS_BOUNDS,
    )


MODELS: Mapping[str, Callable[[Path, ReleasedFiles, RobotSide], Read]] = {
    "leworldmodel": _read_lewm,
    "pldm": _read_lewm,
    "dino_wm": _read_dino_wm,
    "vjepa2_ac": _read_vjepa2_ac,
}
"""Name -> reader of released weights; PLDM's network is that of LeWorldModel."""


def _scale(side: RobotSide, model: str) -> ActionScale:
    if side.statistics is None:
        raise BadCheckpoint(
            f"{model} takes standardised actions, but its weights lack the statistics: give its training log "
            "(data=LOG), or a JSON file with mean and std (statistics=FILE)"
        )
    return ActionScale(mean=tuple(side.statistics.mean.tolist()), std=tuple(side.statistics.std.tolist()))


def _adapter(found: Read, side: RobotSide) -> RobotAdapter:
    """The robot adapter: maps the robot's images, columns and commands to those of the model."""
    robot = ROBOTS["house"] if side.robot is None else side.robot
    if found.bounds is not None and side.robot is not None:
        robot = replace(robot, state=(GRIPPER, EE_POSE))
    statistics = side.statistics or _bounded(found.bounds or ())
    steps, rest = divmod(found.action_dim, len(statistics.mean))
    if rest or not steps:
        raise BadCheckpoint(
            f"this model takes actions of width {found.action_dim}, the robot's have width {len(statistics.mean)}"
        )
    return RobotAdapter(
        robot=robot,
        actions=side.actions,
        picture=PictureFit(size=side.image_size or found.image_size),
        cameras=side.cameras,
        step_s=steps * side.dt_s,
        skip=steps,
        blocks="stacked" if steps > 1 else "joined",
        statistics={"actions": _repeated(statistics, steps)},
    )


def _bounded(bounds: tuple[float, ...]) -> Stats:
    high = torch.tensor(bounds)
    return Stats(mean=torch.zeros_like(high), std=torch.ones_like(high), low=-high, high=high)


def _repeated(one: Stats, steps: int) -> Stats:
    def block(values: Tensor) -> Tensor:
        return values.repeat(steps)

    return Stats(mean=block(one.mean), std=block(one.std), low=block(one.low), high=block(one.high))


def _hashes(place: Path) -> dict[str, str]:
    files = [place] if place.is_file() else sorted(one for one in place.iterdir() if one.is_file())
    return {file.name: file_sha256(file) for file in files}
