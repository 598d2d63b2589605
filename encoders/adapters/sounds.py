"""Released encoders of Audio-JEPA into ours: the authors' Lightning checkpoint and their safetensors.

Blocks are read with both key names (`attn.qkv`, `attn.proj` and `attn.Wqkv`, `attn.out_proj`). The layout of
`Audio-JEPA-base` is known only from its description: its encoder may have any prefix and the authors' or Hugging Face's
names; a class token, a pooling head or registers are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from jepa_mpc.encoders.adapters.lightning import read_lightning
from jepa_mpc.encoders.adapters.names import from_hugging_face
from jepa_mpc.encoders.adapters.placed import PATCHES, TABLE, fill_placed
from jepa_mpc.encoders.adapters.plain import read_plain
from jepa_mpc.encoders.adapters.shapes import count_blocks
from jepa_mpc.encoders.mel import LogMel
from jepa_mpc.encoders.released_sounds import BASE, SOUND_RELEASES
from jepa_mpc.encoders.sound import SoundEncoder, sound_trunk
from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.errors import BadCheckpoint, choose

SECTIONS = ("target_encoder.", "encoder.", "predictor.")
HEADS = {BASE.width: BASE.heads}
"""Heads of the released encoders by width; the shapes do not determine them."""


def load(
    file: str | Path, *, model: str = "audio_jepa", which: str = "target_encoder", heads: int | None = None
) -> SoundEncoder:
    """The encoder of a released file, in evaluation mode, with the spectrograms of its training.

    Args:
        file: `JEPA.ckpt`, a `.safetensors` file, or a folder that holds the release's file.
        model: A name of `SOUND_RELEASES`; determines the layout of the spectrograms, which the weights do not.
        which: "target_encoder" (the EMA, recommended) or "encoder"; ignored for a file with one encoder.
        heads: Attention heads, if no released encoder has this width.

    Raises:
        UnknownName: If there is no such release.
        ValueError: If `which` is unknown.
        BadCheckpoint: If the file cannot be read or holds something else; says what was expected and found.
    """
    release = choose(SOUND_RELEASES, model, "encoder of sounds")
    path = Path(file) / release.file if Path(file).is_dir() else Path(file)
    tensors = encoder_tensors(read_tensors(path), which=which, source=str(path))
    sizes = sizes_of(tensors, source=str(path), heads=heads)
    table = tensors.get(TABLE)
    patches = release.mel.frames // sizes.sides[0] * (release.mel.bands // sizes.sides[1])
    if table is not None and table.shape[1] != patches:
        raise BadCheckpoint(
            f"{path} has positions for {table.shape[1]} patches, {model} has {patches}: choose another of "
            f"{', '.join(SOUND_RELEASES)}"
        )
    with torch.device("meta"):
        trunk = sound_trunk(sizes, release.mel)
    fill_placed(trunk, tensors, table="column_first", title=f"Audio-JEPA ({path})")
    return SoundEncoder(LogMel(release.mel), trunk).eval()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All weights of a file with the authors' usual names (`attn.qkv`, `attn.proj`).

    Raises:
        BadCheckpoint: If there is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise BadCheckpoint(f"there is no file {path}")
    table = from_hugging_face(read_plain(path)) if path.suffix == ".safetensors" else read_lightning(path)
    return usual_spelling(table)


def usual_spelling(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the attention of flash kernels to the usual names."""
    return {name.replace(".attn.Wqkv.", ".attn.qkv.").replace(".attn.out_proj.", ".attn.proj."): value
            for name, value in tensors.items()}  # fmt: skip


def encoder_tensors(tensors: Mapping[str, Tensor], *, which: str, source: str) -> dict[str, Tensor]:
    """The weights of one encoder without their prefix; those of other networks are ignored.

    Args:
        tensors: With the usual names.
        which: "target_encoder" or "encoder".
        source: The file, for messages.

    Raises:
        ValueError: If `which` is unknown.
        BadCheckpoint: If the file has no such encoder, or weights that belong to no network of Audio-JEPA.
    """
    if f"{which}." not in SECTIONS[:2]:
        raise ValueError(f"which must be target_encoder or encoder, got {which!r}")
    found = [name.removesuffix(PATCHES) for name in tensors if name.endswith(PATCHES)]
    prefix = found[0] if len(found) == 1 else f"{which}."
    if prefix not in found:
        some = ", ".join(list(tensors)[:3]) or "nothing"
        raise BadCheckpoint(
            f"{source} is not an Audio-JEPA: expected {which}.{PATCHES} among {len(tensors)} weights ({some})"
        )
    strange = [name for name in tensors if not name.startswith((prefix, *SECTIONS))]
    if strange:
        raise BadCheckpoint(
            f"{source} is not an Audio-JEPA checkpoint: it has {len(strange)} further weights such as {strange[0]}"
        )
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def sizes_of(tensors: Mapping[str, Tensor], *, source: str, heads: int | None = None) -> VideoSizes:
    """Sizes of a released encoder, from the shapes of its weights.

    Raises:
        BadCheckpoint: If a weight that determines a size is missing, or the number of heads is unknown.
    """
    patches, inner = tensors[PATCHES], tensors.get("blocks.0.mlp.fc1.weight")
    if patches.dim() != 4 or inner is None:
        raise BadCheckpoint(
            f"{source} is not an Audio-JEPA: {PATCHES} has {patches.dim()} axes, or there are no blocks"
        )
    width, channels, height, breadth = patches.shape
    heads = heads or HEADS.get(width, 0)
    if not heads or width % heads:
        raise BadCheckpoint(f"{source}: no released encoder has the width {width}: pass heads=NUMBER")
    return VideoSizes(
        width=width, depth=count_blocks(tensors), heads=heads, mlp_dim=inner.shape[0], patch=height,
        patch_width=breadth, tubelet=1, channels=channels, eps=BASE.eps, qkv_bias="blocks.0.attn.qkv.bias" in tensors,
    )  # fmt: skip
