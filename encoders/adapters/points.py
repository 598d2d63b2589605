"""Released encoders of Point-JEPA into ours: the Lightning checkpoints of the authors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from jepa_mpc.encoders.adapters.filling import fill
from jepa_mpc.encoders.adapters.lightning import read_lightning
from jepa_mpc.encoders.adapters.names import block_rules, respell
from jepa_mpc.encoders.layers.clouds import UnitSphere
from jepa_mpc.encoders.points import PointEncoder, PointSizes, point_encoder
from jepa_mpc.errors import BadCheckpoint

COUNTER = ".num_batches_tracked"
HEADS = {384: 6}
"""Heads of the released encoders by width; the shapes do not determine them."""

WHICH = {"teacher": "teacher.ema_model.", "student": "student."}
RULES = (
    *block_rules("trunk.blocks", "student.blocks"),
    (r"^trunk\.norm\.", "student.norm."),
    (r"^tokens\.places\.", "positional_encoding."),
    (r"^tokens\.net\.points\.", "tokenizer.embedding.encoder.first_conv."),
    (r"^tokens\.net\.both\.", "tokenizer.embedding.encoder.second_conv."),
)


def load(file: str | Path, *, which: str = "teacher", groups: int = 64, group_size: int = 32) -> PointEncoder:
    """The encoder of a released file, in evaluation mode; clouds are scaled to the unit sphere, as in its training.

    Args:
        file: A Lightning checkpoint of Point-JEPA.
        which: "teacher" (the EMA, recommended) or "student".
        groups: Number of neighbourhoods, which the weights do not determine.
        group_size: Points per neighbourhood.

    Raises:
        BadCheckpoint: If the file cannot be read or holds something else; says what was expected and found.
        ValueError: If `which` is unknown.
    """
    if which not in WHICH:
        raise ValueError(f"which must be {' or '.join(WHICH)}, got {which!r}")
    tensors = read_lightning(file)
    sizes = sizes_of(tensors, source=str(file), groups=groups, group_size=group_size)
    with torch.device("meta"):
        encoder = point_encoder(sizes, frame=UnitSphere())
    fill_encoder(encoder, tensors, title=f"Point-JEPA ({which} of {file})", which=which)
    return encoder.eval()


def fill_encoder(encoder: PointEncoder, tensors: Mapping[str, Tensor], *, title: str, which: str = "teacher") -> None:
    """Load released weights into an encoder if, and only if, names and shapes match one to one.

    Args:
        encoder: Ours; may be on the meta device.
        tensors: Weights by the authors' names; those of the predictor and of the other network are ignored.
        title: Name of the encoder in the error message.
        which: Source of the blocks: "teacher" or "student".

    Raises:
        BadCheckpoint: If a name is missing, unexpected or of another shape; lists all of them.
    """
    own = encoder_tensors(tensors, which=which)
    counters = {released_name(key): key for key in encoder.state_dict() if key.endswith(COUNTER)}
    own = {name: torch.zeros((), dtype=torch.int64) for name in counters} | own  # only newer files have them
    fill(encoder, own, spelling=released_name, title=title)


def encoder_tensors(tensors: Mapping[str, Tensor], *, which: str) -> dict[str, Tensor]:
    """The weights of an encoder: the chosen network is named `student`, convolutions of width one become matrices."""
    blocks, shared = WHICH[which], ("tokenizer.", "positional_encoding.")
    chosen = {"student." + name.removeprefix(blocks): x for name, x in tensors.items() if name.startswith(blocks)}
    chosen |= {name: x for name, x in tensors.items() if name.startswith(shared)}
    return {name: x[..., 0] if "_conv." in name and x.dim() == 3 else x for name, x in chosen.items()}


def released_name(name: str) -> str:
    """The authors' name of one of our weights (with the student's blocks)."""
    return respell(name, RULES)


def sizes_of(
    tensors: Mapping[str, Tensor],
    *,
    source: str,
    groups: int,
    group_size: int,
    heads: int | None = None,
    placed: int | None = None,
) -> PointSizes:
    """Sizes of a released encoder, from the shapes of its weights.

    Args:
        tensors: In the authors' spelling.
        source: The file, for messages.
        groups: Number of neighbourhoods.
        group_size: Points per neighbourhood.
        heads: Attention heads; by default those of the released encoder of this width.
        placed: Number of blocks with positional embeddings; None for all.

    Raises:
        BadCheckpoint: If a weight that determines a size is missing, or the number of heads is unknown.
    """

    def rows(name: str) -> int:
        if name not in tensors:
            some = ", ".join(list(tensors)[:3]) or "none"
            raise BadCheckpoint(
                f"{source} is not a Point-JEPA: {name} is missing among {len(tensors)} weights ({some})"
            )
        return int(tensors[name].shape[0])

    net = "tokenizer.embedding.encoder."
    inner = (rows(f"{net}first_conv.0.weight"), rows(f"{net}first_conv.3.weight"), rows(f"{net}second_conv.0.weight"))
    width = rows("student.norm.weight")
    heads = heads or HEADS.get(width, 0)
    if not heads or width % heads:
        raise BadCheckpoint(f"{source}: no released encoder has the width {width}: pass the number of heads")
    depth = {int(match[1]) for match in (re.match(r"student\.blocks\.(\d+)\.", name) for name in tensors) if match}
    return PointSizes(
        width=width, depth=len(depth), heads=heads, mlp_dim=rows("student.blocks.0.mlp.fc1.weight"),
        groups=groups, group_size=group_size, net=inner, place=rows("positional_encoding.0.weight"),
        placed=placed,
    )  # fmt: skip
