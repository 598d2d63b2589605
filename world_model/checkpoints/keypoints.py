"""Loads trained detectors: of the hand's keypoints, and of the object that another image shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from jepa_mpc.encoders.hand_points import HandPoints
from jepa_mpc.encoders.object_finder import ObjectFinder
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.world_model.checkpoints.loader import interface_of
from jepa_mpc.world_model.checkpoints.restore import MISFITS, load_network
from jepa_mpc.world_model.parts.finding import ObjectFindingObjective
from jepa_mpc.world_model.parts.objectives.points import HandPointsObjective


def load_hand_points(folder: str | Path, *, device: torch.device | str = "cpu") -> HandPoints:
    """Load the checkpoint of a training of `system=hand_points`.

    Raises:
        BadCheckpoint: If the folder is missing, damaged, of a newer format, or describes something else.
    """
    objective, _ = load_network(folder, kind="system that detects hand keypoints", form=HandPointsObjective)
    return objective.encoder.to(device).eval().requires_grad_(False)


def load_object_finder(folder: str | Path, *, device: torch.device | str = "cpu") -> tuple[ObjectFinder, str]:
    """Load the checkpoint of a training of `system=object_finder`, and the name of its camera.

    Raises:
        BadCheckpoint: If the folder is missing, damaged, of a newer format, or describes something else.
    """
    objective, config = load_network(folder, kind="system that finds objects", form=ObjectFindingObjective)
    try:
        (camera,) = interface_of(config).cameras
    except MISFITS as error:
        raise BadCheckpoint(f"{folder} does not say through which camera its finder looks: {error}") from error
    return objective.encoder.to(device).eval().requires_grad_(False), camera


def finder_config(folder: str | Path) -> dict[str, Any]:
    """The configuration of the network in a checkpoint of `system=object_finder`, as part of another system.

    Raises:
        BadCheckpoint: If the folder is missing, damaged, of a newer format, or describes something else.
    """
    _, config = load_network(folder, kind="system that finds objects", form=ObjectFindingObjective)
    return {"_target_": "encoder_of", "system": config["system"]}
