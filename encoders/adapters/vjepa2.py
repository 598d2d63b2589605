"""Released encoders of V-JEPA 2, 2-AC and 2.1 into ours: `.pt` files of the authors and folders of Hugging Face.

`load` loads every released encoder; the earlier generations are described in `placed`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from jepa_mpc.encoders.adapters import dinov2, lejepa, placed
from jepa_mpc.encoders.adapters.files import Released, read_released
from jepa_mpc.encoders.adapters.filling import fill, filled
from jepa_mpc.encoders.adapters.hub import resolve
from jepa_mpc.encoders.adapters.names import encoder_spelling, single_norm_spelling
from jepa_mpc.encoders.adapters.shapes import check_config, need, trunk
from jepa_mpc.encoders.placed import PlacedForm
from jepa_mpc.encoders.release import Release
from jepa_mpc.encoders.released import RELEASES, vjepa2, vjepa2_1
from jepa_mpc.encoders.released_first import dinov2 as dinov2_form
from jepa_mpc.encoders.released_views import lejepa as lejepa_form
from jepa_mpc.encoders.video import VideoSizes, VideoTransformer
from jepa_mpc.errors import BadCheckpoint, choose

POSITION_TABLE = "pos_embed"
"""A table of constants that some files hold and no released network uses."""

USUAL_HEADS = {
    release.sizes.width: release.sizes.heads for release in RELEASES.values() if release.form in (vjepa2, vjepa2_1)
}
"""Heads of the released encoders, by width."""

FAMILY = "V-JEPA 2"

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    model: str | None = None,
    *,
    hub: str | Path | None = None,
    heads: int | None = None,
    dtype: str = "float32",
    recompute: bool = False,
) -> nn.Module:
    """A released encoder with its weights, in evaluation mode.

    Args:
        model: A name of `RELEASES`, which must match the file; None accepts any encoder in the file.
        hub: A file or folder, or a Hugging Face name `owner/repository`; None fetches the model's own repository.
        heads: See `describe`.
        dtype: Dtype of the weights: "float32", "bfloat16" or "float16".
        recompute: See `VideoTransformer`.

    Raises:
        UnknownName: If there is no such model or dtype.
        BadCheckpoint: If the file is missing or unreadable, or holds something else; says what was expected and found.
    """
    release = None if model is None else choose(RELEASES, model, "encoder")
    wanted = choose(DTYPES, dtype, "dtype")
    title = model or "a released encoder"
    place = resolve(hub or _default_hub(release, title), wanted_by=title)
    released = read_released(place, section=release.section if release else None)
    family = _family(released, release)
    if family is not None:
        found = family.describe(released, heads=heads)
        if model is not None:
            check_release(model, found)
        name = f"{title} ({released.section!r} of {released.source})"
        return family.build(released, found, title=name, dtype=wanted, recompute=recompute, copy=False)
    if model is not None and heads is None and not released.config and _width(released) not in USUAL_HEADS:
        raise BadCheckpoint(f"{released.source} is not {model}: no released encoder has a width of {_width(released)}")
    found = describe(released, heads=heads)
    if model is not None:
        check_release(model, found)
    return build(released, found, title=title, dtype=wanted, recompute=recompute, copy=False)


def _family(released: Released, release: Release | None) -> ModuleType | None:
    """The adapter of an earlier generation that supports the file; None for the V-JEPA 2 family."""
    for family in (placed, dinov2, lejepa):
        if family.fits(released):
            return family
    return placed if release is not None and isinstance(release.form, PlacedForm) else None


def build(
    released: Released,
    described: Release | None = None,
    *,
    title: str = "this encoder",
    dtype: torch.dtype | None = torch.float32,
    recompute: bool = False,
    copy: bool = True,
) -> VideoTransformer:
    """The encoder of a file that was read, in evaluation mode.

    Args:
        released: The file.
        described: Its structure and sizes; by default from `describe`.
        title: Its name in error messages.
        dtype: Dtype of the weights; None keeps the file's.
        recompute: See `VideoTransformer`.
        copy: See `fill`.

    Raises:
        BadCheckpoint: If a weight is missing, unexpected or of another shape.
    """
    described = described or describe(released)
    spelling = encoder_spelling if described.form is vjepa2_1 else single_norm_spelling
    pour = partial(fill, tensors=released.encoder, spelling=spelling, ignored=(POSITION_TABLE,))
    name = f"{title} ({released.section!r} of {released.source})"
    encoder = filled(described, pour, title=name, dtype=dtype, recompute=recompute, copy=copy)
    assert isinstance(encoder, VideoTransformer)
    return encoder


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
    told = trunk(released, USUAL_HEADS, family=FAMILY, heads=heads, dims=(5,))
    sizes = VideoSizes(
        **told,
        tubelet=need(released, "patch_embed.proj.weight", FAMILY).shape[2],
        eps=float(config.get("layer_norm_eps", 1e-6)),
        qkv_bias="blocks.0.attn.qkv.bias" in tensors,
    )
    check_config(released, sizes)
    form = vjepa2_1 if any(name.startswith("norms_block.") for name in tensors) else vjepa2
    return Release(form=form, sizes=sizes, image=int(config.get("crop_size", 0)), file=released.source)


def check_release(model: str, found: Release) -> None:
    """Check that a file holds the released model of that name.

    Args:
        model: A name of `RELEASES`.
        found: The description of a file, from `describe`.

    Raises:
        BadCheckpoint: Names structure and sizes of both, and the model in the file, if known.
    """
    wanted = choose(RELEASES, model, "encoder")
    if (found.form, found.sizes) != (wanted.form, wanted.sizes):
        raise BadCheckpoint(f"{found.file} is not {model}: expected {_told(wanted)}, got {_told(found)}")


def _default_hub(release: Release | None, title: str) -> str:
    if release is not None and release.repository:
        return release.repository
    shelf = "jepa" if release is not None and isinstance(release.form, PlacedForm) else "vjepa2"
    file = f"{release.file} (named in github.com/facebookresearch/{shelf})" if release else "a released file"
    raise BadCheckpoint(f"{title} has no repository to fetch from: download {file} and pass hub=FILE")


def _told(release: Release) -> str:
    """A release in words, with the names of models of these sizes."""
    form, sizes = release.form, release.sizes
    names = [name for name, known in RELEASES.items() if (known.form, known.sizes) == (form, sizes)]
    known = f" = {' or '.join(names)}" if names else ""
    shape = f"width {sizes.width}, {sizes.depth} blocks, {sizes.heads} heads, patches of {sizes.patch} px"
    clips = f", tubelets of {sizes.tubelet} frames" if isinstance(sizes, VideoSizes) and sizes.tubelet > 1 else ""
    places = f", positions for {form.image} px" if isinstance(form, PlacedForm) else ""
    return f"{_generation(release)} with {shape}{clips}{places}{known}"


def _generation(release: Release) -> str:
    if isinstance(release.form, PlacedForm):
        return "I-JEPA" if release.form.frames == 1 else "V-JEPA"
    return {vjepa2: "V-JEPA 2", vjepa2_1: "V-JEPA 2.1", dinov2_form: "DINOv2", lejepa_form: "LeJEPA"}[release.form]


def _width(released: Released) -> int:
    return int(need(released, "patch_embed.proj.weight", FAMILY).shape[0])
