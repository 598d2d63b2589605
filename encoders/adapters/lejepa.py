"""Released encoders of LeJEPA into ours: the ViT-S/16 and ViT-B/16 that Open-Knowledge-AI trained on ImageNet-1k.

The layout is that of DINOv2 without registers and layer scales, under the prefix `backbone.`; the training's projector
is ignored.  It is known from the published training code and description; files with registers or a separate norm for
patches are refused.  For images of another size than the table's, positional embeddings are resized to the grid; the
authors' code also adds a tenth of a cell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Unpack

from torch import Tensor, nn

from jepa_mpc.encoders.adapters.files import Released
from jepa_mpc.encoders.adapters.filling import How, fill, filled
from jepa_mpc.encoders.adapters.names import block_rules, respell
from jepa_mpc.encoders.adapters.shapes import check_config, need, trunk
from jepa_mpc.encoders.release import Release
from jepa_mpc.encoders.released_views import LEJEPA, lejepa
from jepa_mpc.encoders.vit import ViTSizes
from jepa_mpc.errors import BadCheckpoint

FAMILY = "LeJEPA"
PROJECTOR = "cva_module_proj."
USUAL_HEADS = {release.sizes.width: release.sizes.heads for release in LEJEPA.values()}
RULES = (
    *block_rules("blocks", "blocks"),
    (r"^patches\.", "patch_embed.proj."),
    (r"^summary$", "cls_token"),
    (r"^positions$", "pos_embed"),
)


def fits(released: Released) -> bool:
    """Whether a file holds an encoder of this family: a summary token, no layer scales."""
    names = backbone(released.encoder)
    return "cls_token" in names and not any("layer_scale" in name or "weights_in" in name for name in names)


def describe(released: Released, *, heads: int | None = None) -> Release:
    """Sizes of the encoder in a file, from the shapes of its weights.

    Args:
        released: The file.
        heads: Number of heads; by default that of the released encoder of this width.

    Raises:
        BadCheckpoint: If a weight that determines a size is missing, the table is not that of a square image, or the
            number of heads is unknown.
    """
    plain = replace(released, encoder=backbone(released.encoder))
    table = need(plain, "pos_embed", FAMILY)
    side = math.isqrt(table.shape[1] - 1)
    if table.shape[1] != side**2 + 1:
        raise BadCheckpoint(
            f"{released.source}: the table {tuple(table.shape)} is not that of a square image with a summary token"
        )
    told = trunk(plain, USUAL_HEADS, family=FAMILY, heads=heads, dims=(4,))
    sizes = ViTSizes(image=side * told["patch"], **told)
    check_config(plain, sizes)
    return Release(form=lejepa, sizes=sizes, image=sizes.image, file=released.source)


def build(released: Released, described: Release, **how: Unpack[How]) -> nn.Module:
    """The encoder of a file that was read (see `filled`); it outputs all patch tokens."""
    return filled(described, partial(fill, tensors=backbone(released.encoder), spelling=released_name), **how)


def backbone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the encoder, without prefix and without the training's projector."""
    plain = {name.removeprefix("backbone.").removeprefix("model."): value for name, value in tensors.items()}
    return {name: value for name, value in plain.items() if not name.startswith(PROJECTOR)}


def released_name(name: str) -> str:
    """The authors' name of one of our weights."""
    return respell(name, RULES)
