"""Released encoders of I-JEPA and of V-JEPA (the first) into ours: the authors' files and those of Hugging Face."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Unpack

import torch
from torch import Tensor, nn

from jepa_mpc.encoders.adapters.files import Released
from jepa_mpc.encoders.adapters.filling import How, fill, filled
from jepa_mpc.encoders.adapters.names import placed_spelling
from jepa_mpc.encoders.adapters.shapes import check_config, trunk
from jepa_mpc.encoders.placed import TABLES, PlacedForm, PlacedTransformer
from jepa_mpc.encoders.release import Release
from jepa_mpc.encoders.released_first import IJEPA, VJEPA
from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.errors import BadCheckpoint

RELEASED = {**IJEPA, **VJEPA}
USUAL_HEADS = {release.sizes.width: release.sizes.heads for release in RELEASED.values()}
PATCHES, TABLE = "patch_embed.proj.weight", "pos_embed"
CLIP = 16
"""Frames per clip of every released V-JEPA."""
CLIP_TABLES = {(1568, 1024), (1568, 1280), (4608, 1280)}
"""Positions and widths of their tables; no released V-JEPA 2 has one of these."""


def fits(released: Released) -> bool:
    """Whether a file holds an encoder of this family: image patches, few mask tokens, or a table of a known size.

    A table alone is not sufficient: files of V-JEPA 2 may hold an unused one.
    """
    patches, table = released.encoder.get(PATCHES), released.encoder.get(TABLE)
    if patches is None or "cls_token" in released.encoder:
        return False
    tokens = sum(name.startswith("mask_tokens.") for name in released.predictor)
    known = table is not None and tuple(table.shape[1:]) in CLIP_TABLES
    return patches.dim() == 4 or 0 < tokens <= 2 or known


def describe(released: Released, *, heads: int | None = None) -> Release:
    """Structure and sizes of the encoder in a file, from the shapes of its weights and `config.json`.

    Args:
        released: The file.
        heads: Number of heads, which the shapes do not determine; by default that of `config.json`, else that of the
            released encoder of this width.

    Raises:
        BadCheckpoint: If the file holds no such encoder, the number of heads is unknown, or `config.json` contradicts
            the weights.
    """
    tensors, config = released.encoder, released.config
    told = trunk(released, USUAL_HEADS, family="I-JEPA or V-JEPA", heads=heads, dims=(4, 5))
    tubelet = tensors[PATCHES].shape[2:-2]
    sizes = VideoSizes(
        **told,
        tubelet=tubelet[0] if tubelet else 1,
        eps=float(config.get("layer_norm_eps", 1e-6)),
        qkv_bias="blocks.0.attn.qkv.bias" in tensors,
    )
    check_config(released, sizes)
    frames = int(config.get("num_frames", CLIP)) if tubelet else 1
    image = _image(released, sizes, frames)
    form = PlacedForm(image=image, frames=frames, table="even_thirds" if tubelet else "column_first")
    return Release(form=form, sizes=sizes, image=min(form.sides), file=released.source)


def build(released: Released, described: Release, **how: Unpack[How]) -> nn.Module:
    """The encoder of a file that was read (see `filled`)."""
    assert isinstance(described.form, PlacedForm)
    return filled(described, partial(fill_placed, tensors=released.encoder, table=described.form.table), **how)


def fill_placed(
    encoder: PlacedTransformer,
    tensors: Mapping[str, Tensor],
    *,
    table: str,
    title: str,
    dtype: torch.dtype | None = torch.float32,
    copy: bool = True,
) -> None:
    """Load released weights into an encoder if, and only if, names and shapes match one to one.

    Args:
        encoder: One of ours; may be on the meta device.
        tensors: Weights by the authors' names, without prefixes; a missing table of positional embeddings is computed.
        table: Name of the table in `TABLES`.
        title: Name of the encoder in the error message.
        dtype: Dtype of the weights; None keeps the file's.
        copy: See `fill`.

    Raises:
        BadCheckpoint: If a name is missing, unexpected or of another shape.
    """
    weights = dict(tensors)
    weights.setdefault(TABLE, TABLES[table](encoder.native, encoder.width)[None])
    if PATCHES in weights and weights[PATCHES].dim() == 4:
        weights[PATCHES] = weights[PATCHES][:, :, None]  # a tubelet of one frame
    fill(encoder, weights, spelling=placed_spelling, title=title, dtype=dtype, copy=copy)


def _image(released: Released, sizes: VideoSizes, frames: int) -> int | tuple[int, int]:
    """Side of the images of the table of positional embeddings; height and width if `config.json` has two."""
    told = released.config.get("image_size", released.config.get("img_size", released.config.get("crop_size")))
    table, times = released.encoder.get(TABLE), frames // sizes.tubelet
    if table is None and told is None:
        raise BadCheckpoint(
            f"{released.source} holds no positional embeddings ({TABLE}) and no config.json with the size of the "
            "images: use the authors' file, or a folder with config.json"
        )
    if isinstance(told, list) and len(told) == 2 and told[0] != told[1]:
        rows, columns = int(told[0]) // sizes.patch, int(told[1]) // sizes.patch
        if table is None or rows * columns * times == table.shape[1]:
            return int(told[0]), int(told[1])
    if table is None:
        return int(told[0] if isinstance(told, list) else told)
    side = math.isqrt(table.shape[1] // times)
    if side * side * times != table.shape[1]:
        raise BadCheckpoint(f"{released.source}: {table.shape[1]} positions are not a square grid of {times} times")
    return side * sizes.patch
