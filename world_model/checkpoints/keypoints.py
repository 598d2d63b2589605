"""Loads trained hand keypoint detectors."""

from __future__ import annotations

from pathlib import Path

import torch

from jepa_mpc.encoders.hand_points import HandPoints
from jepa_mpc.world_model.checkpoints.restore import load_network
from jepa_mpc.world_model.parts.objectives.points import HandPointsObjective


def load_hand_points(folder: str | Path, *, device: torch.device | str = "cpu") -> HandPoints:
    """Load the checkpoint of a training of `system=hand_points`.

    Raises:
        BadCheckpoint: If the folder is missing, damaged, of a newer format, or describes something else.
    """
    objective, _ = load_network(folder, kind="system that detects hand keypoints", form=HandPointsObjective)
    return objective.encoder.to(device).eval().requires_grad_(False)
