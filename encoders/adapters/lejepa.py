"""Released encoders of LeJEPA into ours: the ViT-S/16 and ViT-B/16 that Open-Knowledge-AI trained on ImageNet-1k.

The layout is that of DINOv2 without registers and without scales of the branches, under the prefix `backbone.`; the
projector of the training is passed over.  It is known from the published training code and description; files with
registers, scales of the branches or a norm of their own for patches are refused.  Pictures of another size than the
table's get places that are resized to the grid, where the authors' code also adds a tenth of a cell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from jepa_mpc.encoders.adapters.files import read_released
from jepa_mpc.encoders.adapters.filling import fill
from jepa_mpc.encoders.adapters.hub import resolve
from jepa_mpc.encoders.adapters.names import block_rules, respell
from jepa_mpc.encoders.vit import VisionTransformer, ViTSizes
from jepa_mpc.errors import BadCheckpoint, choose

PROJECTOR = "cva_module_proj."
HEAD_DIM = 64
"""Width of a head of every released encoder; no shape tells it."""

RULES = (
    *block_rules("blocks", "blocks"),
    (r"^patches\.", "patch_embed.proj."),
    (r"^summary$", "cls_token"),
    (r"^positions$", "pos_embed"),
)


@dataclass(frozen=True, kw_only=True)
class LeJEPARelease:
    """A released encoder.

    Args:
        sizes: Of the network.
        repository: Where Hugging Face has it.
    """

    sizes: ViTSizes
    repository: str


def _sizes(width: int) -> ViTSizes:
    return ViTSizes(image=224, patch=16, width=width, depth=12, heads=width // HEAD_DIM, mlp_dim=4 * width)


LEJEPA = {
    "lejepa_vits": LeJEPARelease(sizes=_sizes(384), repository="OK-AI/lejepa-vits16-pretrain-in1k"),
    "lejepa_vitb": LeJEPARelease(sizes=_sizes(768), repository="OK-AI/lejepa-vitb16-pretrain-in1k"),
}


def load(model: str | None = None, *, hub: str | Path | None = None) -> VisionTransformer:
    """A released encoder with its weights, in evaluation mode; it gives all patch tokens.

    Args:
        model: A name of `LEJEPA`, and the file must hold exactly that; None takes whatever encoder the file holds.
        hub: A file or folder, or a Hugging Face name; None fetches the model's own repository.

    Raises:
        BadCheckpoint: If the file cannot be had or read, or holds something else; says what was expected and found.
        UnknownName: If there is no such model.
        ValueError: If neither a model nor a place is named.
    """
    release = None if model is None else choose(LEJEPA, model, "encoder")
    if release is None and hub is None:
        raise ValueError(f"name a model ({', '.join(LEJEPA)}) or the place of a file (hub=FILE)")
    title = model or "an encoder of LeJEPA"
    released = read_released(resolve(hub or (release.repository if release else ""), wanted_by=title))
    tensors = backbone(released.encoder)
    sizes = sizes_of(tensors, source=released.source)
    if release is not None and sizes != release.sizes:
        raise BadCheckpoint(f"{released.source} is not {model}: expected {release.sizes}, it holds {sizes}")
    with torch.device("meta"):
        encoder = VisionTransformer(sizes, pool="dense")
    fill(encoder, tensors, spelling=released_name, title=f"{title} ({released.source})")
    return encoder.eval()


def backbone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the encoder, without prefix and without the training's projector."""
    plain = {name.removeprefix("backbone.").removeprefix("model."): value for name, value in tensors.items()}
    return {name: value for name, value in plain.items() if not name.startswith(PROJECTOR)}


def sizes_of(tensors: Mapping[str, Tensor], *, source: str) -> ViTSizes:
    """Sizes of a released encoder, from the shapes of its weights.

    Raises:
        BadCheckpoint: If a weight that tells a size is missing, or the table is not that of a square picture.
    """
    needed = ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight")
    missing = [name for name in needed if name not in tensors]
    if missing or tensors["patch_embed.proj.weight"].dim() != 4:
        some = ", ".join(list(tensors)[:3]) or "none"
        lacks = missing[0] if missing else "a patch_embed.proj.weight of four axes"
        raise BadCheckpoint(
            f"{source} is no encoder of LeJEPA: {lacks} is missing among {len(tensors)} weights ({some})"
        )
    width, channels, patch, _ = tensors["patch_embed.proj.weight"].shape
    side = math.isqrt(tensors["pos_embed"].shape[1] - 1)
    if tensors["pos_embed"].shape[1] != side**2 + 1 or width % HEAD_DIM:
        shape = tuple(tensors["pos_embed"].shape)
        raise BadCheckpoint(f"{source}: pos_embed {shape} is no table of a summary token and a square grid")
    return ViTSizes(
        image=side * patch, patch=patch, width=width, heads=width // HEAD_DIM, channels=channels,
        depth=len({name.split(".")[1] for name in tensors if name.startswith("blocks.")}),
        mlp_dim=tensors["blocks.0.mlp.fc1.weight"].shape[0],
    )  # fmt: skip


def released_name(name: str) -> str:
    """The authors' name of one of our weights."""
    return respell(name, RULES)
