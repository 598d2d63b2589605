"""Sources of features: a trained system or released encoder, the same with fresh weights, and the raw input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_mpc.encoders.adapters.vjepa2 import load as load_released
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.preprocessing import RobotPixels
from jepa_mpc.encoders.released import RELEASES, network
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.checkpoints.restore import load_network

Encode = Callable[[Tensor], Tensor]
PATCH = 8
CHUNK = 128
"""Frames per batch."""


@dataclass(frozen=True, kw_only=True)
class FeatureSource:
    """An encoder to probe, and the same network untrained.

    Args:
        name: Name in the report.
        sees: Its input field in a log: frames or clouds.
        trained: Maps frames `G C h w` or clouds `G points 3` to tokens `G N D`.
        fresh: The same with weights drawn from a seed.
        cameras: Cameras of its training, in stacking order; None if unknown.
    """

    name: str
    sees: str
    trained: Encode
    fresh: Callable[[int], Encode]
    cameras: tuple[str, ...] | None


def of_checkpoint(folder: str | Path, *, device: torch.device) -> FeatureSource:
    """The encoder of a trained checkpoint.

    Raises:
        BadCheckpoint: If the folder holds no system that encodes frames.
    """
    objective, config = load_network(folder, kind="system", form=nn.Module)
    system: dict[str, Any] = config["system"]

    def fresh(seed: int) -> Encode:
        return of_objective(assemble(system, generator=generator(seed, "fresh weights")), "the system", device)

    return FeatureSource(
        name=str(folder),
        sees=_seen_by(objective, str(folder)),
        trained=of_objective(objective, str(folder), device),
        fresh=fresh,
        cameras=tuple(config["interface"]["cameras"]),
    )


def released(options: Mapping[str, Any], *, image: int | None, cells: int, device: torch.device) -> FeatureSource:
    """A released image encoder, frozen.

    Args:
        options: Arguments of `vjepa2_encoder`; `model` names the release.
        image: Side (px) of the square input; by default that of its last training.
        cells: Tokens are averaged to at most this many rows and columns, so that thousands of frames fit in memory.
        device: Device to run on.

    Raises:
        BadCheckpoint: If the weights cannot be obtained or are others; says what to do.
        ValueError: If the image side is not a multiple of the patch size.
    """
    trained: Any = load_released(**options)
    model = str(options["model"])
    side = image or RELEASES[model].image
    if cells < 1 or side % trained.sizes.patch:
        raise ValueError(
            f"need cells >= 1 and an image side that is a multiple of {trained.sizes.patch} px, got {cells}, {side}"
        )

    def encode(encoder: nn.Module) -> Encode:
        return _of_pictures(encoder.to(device), image=side, cells=cells, device=device)

    def fresh(seed: int) -> Encode:
        untrained = draw_weights(network(model), generator(seed, "fresh weights"))
        return encode(untrained.to(next(trained.parameters()).dtype).eval())

    return FeatureSource(name=model, sees="frames", trained=encode(trained), fresh=fresh, cameras=None)


def of_objective(objective: nn.Module, name: str, device: torch.device) -> Encode:
    """The encoder of a training loss: inputs `G ...`, each a window of one step, to tokens `G N D`.

    Raises:
        BadCheckpoint: If it does not encode.
    """
    if not hasattr(objective, "encode"):
        raise BadCheckpoint(f"{name} is a {type(objective).__name__}, which does not encode frames")
    objective.eval().to(device)
    return _in_parts(lambda frames: objective.encode(frames[:, None])[:, 0], device)  # type: ignore[operator]


def _seen_by(objective: nn.Module, name: str) -> str:
    seen = str(getattr(objective, "main_input", "frames"))
    if seen not in PLAIN:
        raise BadCheckpoint(f"{name} encodes {seen}, which has no position target: a probe reads {' or '.join(PLAIN)}")
    return seen


def _of_pictures(encoder: nn.Module, *, image: int, cells: int, device: torch.device) -> Encode:
    look = RobotPixels(image, ratio=(0.75, 1.35))  # the whole image, unless its aspect ratio is out of range

    def encode(frames: Tensor) -> Tensor:
        tokens = encoder(look(frames))
        side = math.isqrt(tokens.shape[1])
        grid = tokens.transpose(1, 2).unflatten(2, (side, side)).float()  # (G, D, rows, columns)
        return F.adaptive_avg_pool2d(grid, min(cells, side)).flatten(2).transpose(1, 2)

    return _in_parts(encode, device)


def _in_parts(encode: Encode, device: torch.device) -> Encode:
    """Encode batch by batch on the device, and move the result back."""

    @torch.no_grad()
    def all_of(frames: Tensor) -> Tensor:
        return torch.cat([encode(part.to(device)).cpu() for part in frames.split(CHUNK)])

    return all_of


def pixels(frames: Tensor) -> Tensor:
    """Raw image patches as tokens `G N D`; zeros pad the border patches."""
    height, width = frames.shape[-2:]
    filled = F.pad(frames.float() / 255, (0, -width % PATCH, 0, -height % PATCH))
    boxes = F.pixel_unshuffle(filled, PATCH)  # (G, C patch^2, rows, columns)
    return boxes.flatten(2).transpose(1, 2)


def moments(clouds: Tensor) -> Tensor:
    """Statistics of clouds `G points 3` without a network: mean, spread and deciles as tokens `G 11 3`."""
    deciles = clouds.quantile(torch.linspace(0.1, 0.9, 9), dim=1).transpose(0, 1)
    return torch.cat([clouds.mean(1, keepdim=True), clouds.std(1, keepdim=True), deciles], dim=1)


PLAIN: dict[str, Encode] = {"frames": pixels, "clouds": moments}
"""Raw features of a log field: the baseline for an encoder of it."""
