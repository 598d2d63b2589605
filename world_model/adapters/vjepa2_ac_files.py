"""The authors' file of V-JEPA 2-AC as a world model: encoder and predictor from one file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from jepa_mpc.encoders.adapters.files import read_released
from jepa_mpc.encoders.adapters.vjepa2 import build as build_encoder
from jepa_mpc.encoders.adapters.vjepa2 import describe
from jepa_mpc.encoders.frozen import FrozenFrames
from jepa_mpc.encoders.preprocessing import RobotPixels
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.world_model.adapters.vjepa2_ac import SIDE, load_predictor
from jepa_mpc.world_model.dynamics.model import Interface, WorldModel
from jepa_mpc.world_model.parts.distances import AbsoluteError
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from jepa_mpc.world_model.parts.poses import ArmPose, HandPose, PoseReader
from jepa_mpc.world_model.recipes import as_world_model

ACTIONS = ("dx [m]", "dy [m]", "dz [m]", "rx [rad]", "ry [rad]", "rz [rad]", "gripper")
CHUNK = 2**22


def load_released(
    path: str | Path,
    *,
    cameras: Sequence[str],
    dt_s: float,
    side: int = SIDE,
    heads: int | None = None,
    encoder_heads: int | None = None,
    device: torch.device | str = "cpu",
) -> WorldModel:
    """A world model from the authors' file: its encoder and its predictor.

    Args:
        path: `vjepa2-ac-vitg.pt`.
        cameras: The one camera; the training used one from the left.
        dt_s: Seconds between two observations; 0.25 in training.
        side: Patches per side of an image.
        heads: Attention heads of the predictor; by default 64 channels each, as released.
        encoder_heads: Attention heads of the encoder; by default those of the released encoder of its width.
        device: Device of the networks.

    Raises:
        BadCheckpoint: If the file is missing, damaged, another model's, or has no predictor.
    """
    objective = load_objective(path, side=side, heads=heads, encoder_heads=encoder_heads).to(device)
    prepare: Any = objective.preprocess
    size = int(prepare.size)
    interface = Interface(
        cameras=tuple(cameras), image_size=size, actions=ACTIONS, dt_s=dt_s, log=f"released weights, {Path(path).name}"
    )
    return as_world_model(objective, interface, fingerprint=_fingerprint(Path(path)))


def load_objective(
    path: str | Path,
    *,
    side: int = SIDE,
    heads: int | None = None,
    encoder_heads: int | None = None,
    reader: PoseReader | None = None,
) -> DynamicsObjective:
    """Encoder and predictor of the authors' file, frozen; see `load_released`.

    Args:
        path: `vjepa2-ac-vitg.pt`.
        side: Patches per side of an image.
        heads: Attention heads of the predictor.
        encoder_heads: Attention heads of the encoder.
        reader: Reads poses from proprioception; by default that of our simulated arms.

    Raises:
        BadCheckpoint: If the file is missing, damaged, another model's, or has no predictor.
    """
    released = read_released(path, section="encoder")
    if not released.predictor:
        raise BadCheckpoint(f"{path} holds an encoder and no predictor: expected the file vjepa2-ac-vitg.pt")
    encoder = build_encoder(released, describe(released, heads=encoder_heads), title="V-JEPA 2-AC", copy=False)
    predictor = load_predictor(
        released.predictor, heads=heads, rows=side, columns=side, reader=ArmPose() if reader is None else reader
    )
    objective = DynamicsObjective(
        encoder=FrozenFrames(encoder),
        predictor=predictor,
        preprocess=RobotPixels(side * encoder.sizes.patch),
        distance=AbsoluteError(),
    )
    return objective.eval().requires_grad_(False)


def system_of(objective: DynamicsObjective) -> dict[str, Any]:
    """The configuration of a released model for `assemble`, for a checkpoint."""
    parts: Any = objective
    reader = {HandPose: "hand_pose", ArmPose: "arm_pose"}[type(parts.predictor.proprio)]
    sizes = {
        "_target_": "vjepa2_ac_sizes",
        "encoder": {"_target_": "video_sizes", **asdict(parts.encoder.encoder.sizes)},
        "predictor": {"_target_": "block_causal_sizes", **asdict(parts.predictor.sizes)},
    }
    return {
        "_target_": "vjepa2_ac",
        "preset": sizes,
        "reader": {"_target_": reader},
        "preprocess": {"_target_": "robot_pixels", "size": parts.preprocess.size},
    }


def _fingerprint(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()[:12]
