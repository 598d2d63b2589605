"""Where features come from: a trained system, the same with fresh weights, and the bare pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.checkpoint import load_checkpoint, load_strict
from core.errors import BadCheckpoint
from core.seeding import generator
from world_model.assembly import assemble

Encode = Callable[[Tensor], Tensor]
PATCH = 8


def trained(folder: str | Path) -> tuple[Encode, dict[str, Any]]:
    """The encoder of a training (frames `G C h w` to tokens `G N D`), and its checkpoint's configuration.

    Raises:
        BadCheckpoint: If the folder holds no system that encodes frames.
    """
    tensors, config = load_checkpoint(folder)
    try:
        objective = assemble(config["system"])
    except (LookupError, TypeError, ValueError) as error:
        raise BadCheckpoint(f"{folder} describes no system of this version: {error}") from error
    load_strict(objective, tensors, str(folder))
    return encoder_of(objective, str(folder)), config


def fresh(system: dict[str, Any], *, seed: int) -> Encode:
    """The same system before any training."""
    return encoder_of(assemble(system, generator=generator(seed, "fresh weights")), "the system")


def encoder_of(objective: nn.Module, name: str) -> Encode:
    """The encoder of an objective, a chunk of frames at a time.

    Raises:
        BadCheckpoint: If the objective encodes no frames.
    """
    if not hasattr(objective, "encode"):
        raise BadCheckpoint(f"{name} is a {type(objective).__name__}, which encodes no frames")
    objective.eval()

    @torch.no_grad()
    def encode(frames: Tensor) -> Tensor:
        parts = [objective.encode(part[:, None])[:, 0] for part in frames.split(128)]  # type: ignore[operator]
        return torch.cat(parts)

    return encode


def pixels(frames: Tensor) -> Tensor:
    """Patches of the picture as tokens `G N D`, as they are; black fills the last ones up."""
    height, width = frames.shape[-2:]
    filled = F.pad(frames.float() / 255, (0, -width % PATCH, 0, -height % PATCH))
    boxes = F.pixel_unshuffle(filled, PATCH)  # (G, C patch^2, rows, columns)
    return boxes.flatten(2).transpose(1, 2)
