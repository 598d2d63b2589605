"""Trained keypoints of the hand, read from their folder."""

from __future__ import annotations

from pathlib import Path

import torch

from jepa_mpc.encoders.hand_points import HandPoints
from jepa_mpc.world_model.checkpoints.restore import load_network
from jepa_mpc.world_model.parts.objectives.points import HandPointsObjective


def load_hand_points(folder: str | Path, *, device: torch.device | str = "cpu") -> HandPoints:
    """Read what a training of `system=hand_points` left.

    Raises:
        BadCheckpoint: If the folder is missing, damaged, of a newer format, or describes something else.
    """
    objective, _ = load_network(folder, kind="system that finds keypoints of the hand", form=HandPointsObjective)
    return objective.encoder.to(device).eval().requires_grad_(False)
