"""Sizes of a network from the shapes of released weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypedDict

from torch import Tensor

from jepa_mpc.encoders.adapters.files import Released
from jepa_mpc.encoders.release import Sizes
from jepa_mpc.errors import BadCheckpoint


def need(released: Released, name: str, family: str) -> Tensor:
    """A weight of the encoder that determines a size.

    Raises:
        BadCheckpoint: If the file lacks that name, so is not an encoder of this family.
    """
    if name not in released.encoder:
        some = ", ".join(list(released.encoder)[:3])
        raise BadCheckpoint(
            f"{released.section!r} of {released.source} is not a {family} encoder: {name} is missing among "
            f"{len(released.encoder)} weights such as {some}"
        )
    return released.encoder[name]


class Trunk(TypedDict):
    """Sizes that the weights of every Transformer determine."""

    width: int
    depth: int
    heads: int
    mlp_dim: int
    patch: int
    channels: int


def trunk(
    released: Released, usual: Mapping[int, int], *, family: str, heads: int | None, dims: tuple[int, ...]
) -> Trunk:
    """Sizes of an encoder from its weights.

    Args:
        released: The file.
        usual: Heads of the released encoders of this family, by width.
        family: Expected family, for messages.
        heads: See `heads_of`.
        dims: Allowed number of axes of the patch kernel: 4 for images, 5 for clips.

    Raises:
        BadCheckpoint: If a weight that determines a size is missing or has other axes, or the heads are unknown.
    """
    kernel = need(released, "patch_embed.proj.weight", family).shape
    if len(kernel) not in dims:
        raise BadCheckpoint(
            f"{released.source} holds patches of {tuple(kernel)}: not an encoder of the {family} family"
        )
    return {
        "width": kernel[0],
        "depth": count_blocks(released.encoder),
        "heads": heads_of(released, kernel[0], usual, given=heads),
        "mlp_dim": need(released, "blocks.0.mlp.fc1.weight", family).shape[0],
        "patch": kernel[-2],
        "channels": kernel[1],
    }


def count_blocks(tensors: Mapping[str, Tensor]) -> int:
    """Number of blocks of an encoder with the authors' names."""
    return 1 + max(int(match[1]) for match in (re.match(r"blocks\.(\d+)\.", name) for name in tensors) if match)


def heads_of(released: Released, width: int, usual: Mapping[int, int], *, given: int | None) -> int:
    """The number of attention heads, which the shapes do not determine: given, from `config.json`, or by width.

    Raises:
        BadCheckpoint: If it is unknown, or does not divide the width.
    """
    told = released.config.get("num_attention_heads", released.config.get("num_heads"))
    heads = int(given or told or usual.get(width, 0))
    if not heads or width % heads:
        said = f"{heads or 'an unknown number of'} heads for a width of {width}"
        raise BadCheckpoint(f"{released.source}: {said}; pass heads=NUMBER (the shapes do not determine it)")
    return heads


def check_config(released: Released, sizes: Sizes) -> None:
    """Refuse a file whose `config.json` contradicts the weights.

    Raises:
        BadCheckpoint: Names both values.
    """
    told: dict[str, Any] = {
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.depth,
        "patch_size": sizes.patch,
        "tubelet_size": getattr(sizes, "tubelet", 1),
        "in_chans": sizes.channels,
        "num_channels": sizes.channels,
        "num_attention_heads": sizes.heads,
    }
    wrong = [
        f"{name} {released.config[name]} (weights: {value})"
        for name, value in told.items()
        if released.config.get(name, value) != value
    ]
    if wrong:
        raise BadCheckpoint(f"config.json beside {released.source} contradicts the weights: {', '.join(wrong)}")
