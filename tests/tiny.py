"""A world model small enough for tests, untrained: the shipped system with narrow parts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.checkpoints.loader import save_world_model
from jepa_mpc.world_model.dynamics.model import Interface
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective

SIZE = 32
ACTIONS = ("dx [m]", "dy [m]", "dz [m]", "rx [rad]", "ry [rad]", "rz [rad]", "gripper")
SYSTEM: dict[str, Any] = {
    "_target_": "leworldmodel",
    "preset": "lab",
    "action_dim": 7,
    "action_scale": [0.05, 0.05, 0.05, 1.0, 1.0, 1.0, 1.0],
    "encoder": {
        "_target_": "keypoint_encoder",
        "num_cameras": 2,
        "width": 64,
        "widths": [8, 8, 8, 8],
        "keypoints": 4,
        "hidden": 16,
    },
    "preprocess": {
        "_target_": "normalise_pixels",
        "mean": [0.45, 0.45, 0.45],
        "std": [0.25, 0.25, 0.25],
    },
    "open_loop": {"_target_": "open_loop", "weight": 1.0},
    "extra": [["displacement", 1.0, {"_target_": "hindsight_displacement", "width": 64}]],
}

_EYE = {"_target_": "keypoint_encoder", "width": 64, "widths": [8, 8, 8, 8], "keypoints": 4, "hidden": 16}
HANDLING: dict[str, Any] = SYSTEM | {
    "action_dim": 5,
    "action_scale": [0.05, 0.05, 0.05, 0.04, 0.04],
    "num_tokens": 2,
    "encoder": {
        "_target_": "hand_eye_encoder",
        "scene": {"_target_": "remembered", "encoder": {**_EYE, "num_cameras": 2}},
        "wrist": {**_EYE, "num_cameras": 1},
    },
    "extra": [
        ["displacement", 1.0, {"_target_": "hindsight_displacement", "width": 64, "look": {"_target_": "first_token"}}]
    ],
    "readings": [
        [
            "object",
            1.0,
            {"_target_": "place_reading", "column": "object_felt", "width": 128, "held": "held_felt", "height": -4},
        ],
        [
            "grip",
            1.0,
            {"_target_": "hindsight_reading", "column": "observation.gripper_command", "width": 128, "axes": 1},
        ],
        ["held", 1.0, {"_target_": "hindsight_reading", "column": "held_felt", "width": 128, "axes": 1}],
    ],
}
HANDLING_ACTIONS = ("dx [m]", "dy [m]", "dz [m]", "opening before [m]", "opening after [m]")


def handling(seed: int = 0) -> DynamicsObjective:
    """An untrained tiny world model of handling."""
    made: DynamicsObjective = assemble(copy.deepcopy(HANDLING))
    draw_weights(made, generator(seed))
    return made


def save_handling(folder: Path, *, seed: int = 0) -> Path:
    """Publish one and return its folder."""
    sees = interface(cameras=("left", "right", "wrist"), actions=HANDLING_ACTIONS)
    save_world_model(folder, handling(seed), system=HANDLING, interface=sees)
    return folder


def system(**changes: Any) -> dict[str, Any]:
    """A copy of the tiny system with other entries at the top."""
    return copy.deepcopy(SYSTEM) | changes


def interface(**changes: Any) -> Interface:
    """What the tiny world model sees and commands."""
    facts: dict[str, Any] = {"cameras": ("left", "right"), "image_size": SIZE, "actions": ACTIONS, "dt_s": 0.24}
    return Interface(**facts | changes)


def objective(seed: int = 0, **changes: Any) -> DynamicsObjective:
    """An untrained tiny world model; the seed decides its weights."""
    made: DynamicsObjective = assemble(system(**changes))
    draw_weights(made, generator(seed))
    return made


def save(folder: Path, *, seed: int = 0, described: dict[str, Any] | None = None, **facts: Any) -> Path:
    """Publish one and return its folder; `described` is told as its system instead, `facts` change the interface."""
    save_world_model(folder, objective(seed), system=described or system(), interface=interface(**facts))
    return folder


def frames(worlds: int = 2, times: int = 3, *, seed: int = 0, channels: int = 6, size: int = SIZE) -> torch.Tensor:
    """Noise as a camera gives it, uint8 `B T C h w`."""
    return torch.randint(
        0, 256, (worlds, times, channels, size, size), dtype=torch.uint8, generator=generator(seed, "frames")
    )
