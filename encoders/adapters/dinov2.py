"""DINOv2 encoders in the layout of transformers into ours: the baseline of the JEPAs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Unpack

from torch import Tensor, nn

from jepa_mpc.encoders.adapters.files import Released
from jepa_mpc.encoders.adapters.filling import How, fill, filled
from jepa_mpc.encoders.adapters.names import respell, single_norm_spelling
from jepa_mpc.encoders.adapters.shapes import check_config, need, trunk
from jepa_mpc.encoders.release import Release
from jepa_mpc.encoders.released_first import DINOV2, dinov2
from jepa_mpc.encoders.vit import ViTSizes
from jepa_mpc.errors import BadCheckpoint

FAMILY = "DINOv2"
USUAL_HEADS = {release.sizes.width: release.sizes.heads for release in DINOV2.values()}
UNUSED = ("embeddings.mask_token",)
"""Parts that only its training uses."""
SCALES = {"attn.proj": "layer_scale1", "mlp.fc2": "layer_scale2"}
"""Linear maps whose output is scaled per channel."""


def fits(released: Released) -> bool:
    """Whether a file holds an encoder of this family: a summary token and layer scales."""
    names = released.encoder
    return "cls_token" in names and any("layer_scale1" in name or "mlp.weights_in" in name for name in names)


def describe(released: Released, *, heads: int | None = None) -> Release:
    """Sizes of the encoder in a file, from the shapes of its weights and `config.json`.

    Args:
        released: The file.
        heads: Number of heads; by default that of `config.json`, else that of the released encoder of this width.

    Raises:
        BadCheckpoint: If the file holds another network, or the number of heads is unknown.
    """
    tensors = released.encoder
    if any("mlp.weights_in" in name for name in tensors):
        raise BadCheckpoint(
            f"{released.source} holds a DINOv2 with gated feed-forward parts (the giant one), which is not supported: "
            f"use {', '.join(DINOV2)}"
        )
    if any("register_tokens" in name for name in tensors):
        raise BadCheckpoint(f"{released.source} holds a DINOv2 with registers: use one without")
    told = trunk(released, USUAL_HEADS, family=FAMILY, heads=heads, dims=(4,))
    image = math.isqrt(need(released, "pos_embed", FAMILY).shape[1] - 1) * told["patch"]
    sizes = ViTSizes(image=image, eps=float(released.config.get("layer_norm_eps", 1e-6)), **told)
    check_config(released, sizes)
    return Release(form=dinov2, sizes=sizes, image=224, file=released.source)


def build(released: Released, described: Release, **how: Unpack[How]) -> nn.Module:
    """The encoder of a file that was read (see `filled`); layer scales are folded into the weights."""
    pour = partial(fill, tensors=folded(released.encoder), spelling=spelling, ignored=UNUSED)
    return filled(described, pour, **how)


def spelling(name: str) -> str:
    """The released name of one of our weights, after folding the layer scales."""
    own = ((r"^summary$", "cls_token"), (r"^positions$", "pos_embed"), (r"^norm\.", "norm."))
    return respell(name, own) if name.startswith(("summary", "positions", "norm.")) else single_norm_spelling(name)


def folded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with folded layer scales: scale (W x + b) is (scale W) x + scale b.

    Raises:
        BadCheckpoint: If a layer scale is missing.
    """
    weights = {name: value for name, value in tensors.items() if "layer_scale" not in name}
    for name in list(weights):
        match = re.fullmatch(r"(blocks\.\d+)\.(attn\.proj|mlp\.fc2)\.(weight|bias)", name)
        if match:
            key = f"{match[1]}.{SCALES[match[2]]}.lambda1"
            if key not in tensors:
                raise BadCheckpoint(f"{key} is missing beside {name}")
            scale = tensors[key]
            weights[name] = weights[name] * (scale[:, None] if match[3] == "weight" else scale)
    return weights
