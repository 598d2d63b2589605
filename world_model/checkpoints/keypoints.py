"""Trained keypoints of the hand, read from their folder."""

from __future__ import annotations

from pathlib import Path

import torch

from jepa_mpc.checkpoint import load_checkpoint, load_strict
from jepa_mpc.encoders.hand_points import HandPoints
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.checkpoints.loader import MISFITS
from jepa_mpc.world_model.parts.objectives.points import HandPointsObjective


def load_hand_points(folder: str | Path, *, device: torch.device | str = "cpu") -> HandPoints:
    """Read what a training of `system=hand_points` left.

    Raises:
        BadCheckpoint: If the folder is missing, damaged, of a newer format, or describes something else.
    """
    tensors, config = load_checkpoint(folder)
    try:
        objective = assemble(config["system"])
    except MISFITS as error:
        raise BadCheckpoint(f"{folder} describes no system of this version: {error}") from error
    if not isinstance(objective, HandPointsObjective):
        raise BadCheckpoint(f"{folder} describes a {type(objective).__name__}, not points of the hand")
    load_strict(objective, tensors, str(folder))
    return objective.encoder.to(device).eval().requires_grad_(False)
