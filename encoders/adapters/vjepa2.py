"""Released encoders of V-JEPA 2, 2-AC and 2.1 into ours: `.pt` files of the authors and folders of Hugging Face."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa_mpc.encoders.adapters.files import Released, read_released
from jepa_mpc.encoders.adapters.filling import fill
from jepa_mpc.encoders.adapters.hub import resolve
from jepa_mpc.encoders.adapters.names import encoder_spelling, single_norm_spelling
from jepa_mpc.encoders.released import RELEASES, Release, vjepa2, vjepa2_1
from jepa_mpc.encoders.video import VideoSizes, VideoTransformer
from jepa_mpc.errors import BadCheckpoint, choose

POSITION_TABLE = "pos_embed"
"""A table of constants that some files carry and that no released network uses."""

USUAL_HEADS = {release.sizes.width: release.sizes.heads for release in RELEASES.values()}
"""Heads of the released encoders, by width."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    model: str | None = None,
    *,
    hub: str | Path | None = None,
    heads: int | None = None,
    dtype: str = "float32",
    recompute: bool = False,
) -> VideoTransformer:
    """A released encoder with its weights, in evaluation mode.

    Args:
        model: A name of `RELEASES`, and the file must hold exactly that; None takes whatever encoder the file holds.
        hub: A file or folder, or a Hugging Face name `owner/repository`; None fetches the model's own repository.
        heads: See `describe`.
        dtype: Of the weights: "float32", "bfloat16" or "float16".
        recompute: See `VideoTransformer`.

    Raises:
        UnknownName: If there is no such model or dtype.
        BadCheckpoint: If the file cannot be had or read, or holds something else; says what was expected and found.
    """
    release = None if model is None else choose(RELEASES, model, "encoder")
    wanted = choose(DTYPES, dtype, "dtype")
    title = model or "an encoder of the V-JEPA 2 family"
    place = resolve(hub or _default_hub(release, title), wanted_by=title)
    released = read_released(place, section=release.section if release else None)
    if model is not None and heads is None and not released.config and _width(released) not in USUAL_HEADS:
        raise BadCheckpoint(f"{released.source} is not {model}: no released encoder has a width of {_width(released)}")
    found = describe(released, heads=heads)
    if model is not None:
        check_release(model, found)
    return build(released, found, title=title, dtype=wanted, recompute=recompute)


def build(
    released: Released,
    described: Release | None = None,
    *,
    title: str = "this encoder",
    dtype: torch.dtype | None = torch.float32,
    recompute: bool = False,
) -> VideoTransformer:
    """The encoder of a file that was read, in evaluation mode.

    Args:
        released: The file.
        described: Its form and sizes; by default what `describe` makes of it.
        title: What it is called in error messages.
        dtype: Of the weights; None keeps the file's.
        recompute: See `VideoTransformer`.

    Raises:
        BadCheckpoint: If a weight is missing, unexpected or of another shape.
    """
    described = described or describe(released)
    with torch.device("meta"):
        encoder = described(recompute=recompute)
    spelling = encoder_spelling if encoder.levels else single_norm_spelling
    name = f"{title} ({released.section!r} of {released.source})"
    fill(encoder, released.encoder, spelling=spelling, title=name, dtype=dtype, ignored=(POSITION_TABLE,))
    return encoder.eval()


def describe(released: Released, *, heads: int | None = None) -> Release:
    """Form and sizes of the encoder in a file, from the shapes of its weights and `config.json`.

    Args:
        released: The file.
        heads: Number of heads, which no shape tells; by default that of `config.json`, else that of the released
            encoder with the same width.

    Raises:
        BadCheckpoint: If the file holds no such encoder, the number of heads cannot be known, or `config.json`
            contradicts the weights.
    """
    tensors, config = released.encoder, released.config
    patches = _tensor(released, "patch_embed.proj.weight")
    width, channels, tubelet, patch, _ = patches.shape
    heads = int(heads or config.get("num_attention_heads") or USUAL_HEADS.get(width, 0))
    if not heads or width % heads:
        told = f"{heads or 'an unknown number of'} heads for a width of {width}"
        raise BadCheckpoint(f"{released.source}: {told}; give heads=NUMBER (the shapes of the weights do not tell it)")
    sizes = VideoSizes(
        width=width,
        depth=_count_blocks(tensors),
        heads=heads,
        mlp_dim=_tensor(released, "blocks.0.mlp.fc1.weight").shape[0],
        patch=patch,
        tubelet=tubelet,
        channels=channels,
        eps=float(config.get("layer_norm_eps", 1e-6)),
        qkv_bias="blocks.0.attn.qkv.bias" in tensors,
    )
    _check_config(released, sizes)
    form = vjepa2_1 if any(name.startswith("norms_block.") for name in tensors) else vjepa2
    return Release(form=form, sizes=sizes, image=int(config.get("crop_size", 0)), file=released.source)


def check_release(model: str, found: Release) -> None:
    """Refuse what is not the released model of that name.

    Args:
        model: A name of `RELEASES`.
        found: What `describe` made of a file.

    Raises:
        BadCheckpoint: With form and sizes of both, and the name of what was found, if it is known.
    """
    wanted = choose(RELEASES, model, "encoder")
    if (found.form, found.sizes) != (wanted.form, wanted.sizes):
        raise BadCheckpoint(f"{found.file} is not {model}: expected {_told(wanted)}, it holds {_told(found)}")


def _default_hub(release: Release | None, title: str) -> str:
    if release is not None and release.repository:
        return release.repository
    file = f"{release.file} (named in github.com/facebookresearch/vjepa2)" if release else "a released file"
    raise BadCheckpoint(f"{title} is in no repository that could be fetched: download {file} and give hub=FILE")


def _told(release: Release) -> str:
    """A release in words, with the names under which its sizes are known."""
    form, sizes = release.form, release.sizes
    names = [name for name, known in RELEASES.items() if (known.form, known.sizes) == (form, sizes)]
    generation = "V-JEPA 2.1" if form is vjepa2_1 else "V-JEPA 2"
    known = f" = {' or '.join(names)}" if names else ""
    shape = f"width {sizes.width}, {sizes.depth} blocks, {sizes.heads} heads, patches of {sizes.patch} px"
    return f"{generation} with {shape}, tubelets of {sizes.tubelet} frames{known}"


def _tensor(released: Released, name: str) -> Tensor:
    if name not in released.encoder:
        some = ", ".join(list(released.encoder)[:3])
        raise BadCheckpoint(
            f"{released.section!r} of {released.source} is no encoder of the V-JEPA 2 family: {name} is missing among "
            f"{len(released.encoder)} weights such as {some}"
        )
    return released.encoder[name]


def _width(released: Released) -> int:
    return int(_tensor(released, "patch_embed.proj.weight").shape[0])


def _count_blocks(tensors: Mapping[str, Tensor]) -> int:
    return 1 + max(int(match[1]) for match in (re.match(r"blocks\.(\d+)\.", name) for name in tensors) if match)


def _check_config(released: Released, sizes: VideoSizes) -> None:
    told: dict[str, Any] = {
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.depth,
        "patch_size": sizes.patch,
        "tubelet_size": sizes.tubelet,
        "in_chans": sizes.channels,
        "num_attention_heads": sizes.heads,
    }
    wrong = [
        f"{name} {released.config[name]} (weights: {value})"
        for name, value in told.items()
        if released.config.get(name, value) != value
    ]
    if wrong:
        raise BadCheckpoint(f"config.json beside {released.source} contradicts the weights: {', '.join(wrong)}")
