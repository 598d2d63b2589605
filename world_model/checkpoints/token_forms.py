"""Token layout of encoders, and encoders that are parts of other systems."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jepa_mpc.encoders.hand_points import HandPoints
from jepa_mpc.encoders.object_finder import ObjectFinder
from jepa_mpc.encoders.points import PointEncoder
from jepa_mpc.encoders.slots import GaussianStart, SlotEncoder
from jepa_mpc.encoders.sound import SoundEncoder
from jepa_mpc.encoders.video import VideoTransformer
from jepa_mpc.errors import BadObservation

OF_PICTURES = "keypoint, vit_small, resnet_grid, ijepa_small, ..."
"""Examples of single-image encoders, by their command-line names."""

OTHER_SENSES: dict[type[nn.Module], str] = {
    PointEncoder: "takes point clouds",
    SoundEncoder: "hears sounds",
    HandPoints: "takes pairs of images (encoder=keypoint is its network for single ones)",
    ObjectFinder: "takes pairs of images (encoder=keypoint is its kind for single ones)",
}
"""Encoders that do not take single images, and what they take instead."""


@dataclass(frozen=True, kw_only=True)
class TokenForm:
    """The tokens of one image.

    Args:
        count: Tokens N.
        width: Their width D.
        grid: Rows and columns, (1, 1) for a single token; None for object slots, which have no position.
        depths: Blocks whose tokens the method `depths` returns; empty without that method.
    """

    count: int
    width: int
    grid: tuple[int, int] | None
    depths: tuple[int, ...] = ()


def encoder_of(*, system: nn.Module) -> nn.Module:
    """The encoder of a system, trainable, with random weights.

    Args:
        system: The training loss of the system.

    Raises:
        ValueError: If the system has no encoder.
    """
    encoder = getattr(system, "published", getattr(system, "encoder", None))
    if not isinstance(encoder, nn.Module):
        raise ValueError(f"a {type(system).__name__} has no encoder")
    return encoder.requires_grad_(True)


def form_of(encoder: nn.Module, picture: Tensor) -> TokenForm:
    """The token layout of an encoder for an image.

    Args:
        encoder: The encoder; may be on the meta device.
        picture: A prepared image `1 C h w`.

    Raises:
        ValueError: If it does not take single images, or not this one.
    """
    other = next((told for kind, told in OTHER_SENSES.items() if isinstance(encoder, kind)), None)
    if other is not None:
        raise ValueError(f"it {other}: use an image encoder ({OF_PICTURES})")
    if isinstance(encoder, SlotEncoder):
        return TokenForm(count=_slots(encoder), width=encoder.width, grid=None)
    weight = next(encoder.parameters())
    try:
        with torch.no_grad():
            tokens: Tensor = encoder.eval()(picture.to(weight.device, weight.dtype))
    except (BadObservation, ValueError) as error:
        raise ValueError(
            f"it does not accept the log's images ({error}): choose one camera, or another size"
        ) from error
    count, width = tokens.shape[1:]
    return TokenForm(count=count, width=width, grid=_grid(encoder, count), depths=_depths(encoder))


def _slots(encoder: SlotEncoder) -> int:
    start = encoder.start
    return start.num_slots if isinstance(start, GaussianStart) else start.slots.shape[1]


def _grid(encoder: nn.Module, count: int) -> tuple[int, int] | None:
    """Square grids; those of several cameras are stacked vertically."""
    cameras = int(getattr(encoder, "num_cameras", 1)) if count > 1 else 1
    side = math.isqrt(count // cameras)
    return (cameras * side, side) if cameras * side**2 == count else None


def _depths(encoder: nn.Module) -> tuple[int, ...]:
    if not isinstance(encoder, VideoTransformer):
        return ()
    return encoder.levels or tuple(range(encoder.sizes.depth))
