"""Loads trained detectors: of the hand's keypoints, and of the object that another image shows."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class TrainedFinder:
    """A finder from a checkpoint.

    Args:
        network: Finds objects.
        camera: Name of the camera in whose images it does.
        described: Configuration of the network, as part of another system.
    """

    network: ObjectFinder
    camera: str
    described: dict[str, Any]


def load_object_finder(folder: str | Path, *, device: torch.device | str = "cpu") -> TrainedFinder:
    """Load the checkpoint of a training of `system=object_finder`.

    Raises:
        BadCheckpoint: If the folder is missing, damaged, of a newer format, or describes something else.
    """
    objective, config = load_network(folder, kind="system that finds objects", form=ObjectFindingObjective)
    try:
        (camera,) = interface_of(config).cameras
    except MISFITS as error:
        raise BadCheckpoint(f"{folder} does not say through which camera its finder looks: {error}") from error
    network = objective.encoder.to(device).eval().requires_grad_(False)
    return TrainedFinder(
        network=network, camera=camera, described={"_target_": "encoder_of", "system": config["system"]}
    )
