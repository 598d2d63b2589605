"""The released layout of Causal-JEPA: a bare predictor, or one inside a whole training module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from jepa_mpc.encoders.adapters.filling import fill
from jepa_mpc.encoders.adapters.plain import read_table
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.world_model.parts.predictors.object_world import NumbersNode, ObjectWorld
from jepa_mpc.world_model.parts.predictors.slots import SlotPredictor, SlotSizes

_NAMES = (
    (r"^times$", "time_pos_embed"),
    (r"^anchor\.", "id_projector."),
    (r"^norm\.", "transformer.norm."),
    (r"^output\.", "to_out."),
    (r"^blocks\.(\d+)\.attention\.to_qkv\.", r"transformer.layers.\1.0.in_proj_"),
    (r"^blocks\.(\d+)\.attention\.output\.0\.", r"transformer.layers.\1.0.out_proj."),
    (r"^blocks\.(\d+)\.mlp\.norm\.", r"transformer.layers.\1.1.0."),
    (r"^blocks\.(\d+)\.mlp\.up\.", r"transformer.layers.\1.1.1."),
    (r"^blocks\.(\d+)\.mlp\.down\.", r"transformer.layers.\1.1.4."),
)
PREFIXES = ("model.predictor.", "predictor.", "module.", "")
NODES = {"action": "action_encoder.patch_embed.", "felt": "proprio_encoder.patch_embed."}


def spelling(name: str) -> str:
    """The released name of one weight of a `SlotPredictor`."""
    for pattern, theirs in _NAMES:
        changed, hits = re.subn(pattern, theirs, name)
        if hits:
            return changed
    return name


def load_released(
    path: str | Path, *, heads: int = 16, future: int = 1, dropout: float = 0.1, per_round: int | None = None
) -> ObjectWorld:
    """A released predictor, with its nodes of action and proprioception if the file has them, in evaluation mode.

    Files with pickled training modules are refused: store their `state_dict()` with `torch.save`, or as safetensors.

    Args:
        path: A weight file.
        heads: Attention heads, which the shapes do not determine.
        future: Frames predicted at once; the rest of the time table is history.
        dropout: Dropout rate in training.
        per_round: See `ObjectWorld`; by default all frames of a round are kept, as in the authors' planning.

    Raises:
        BadCheckpoint: If the file cannot be read safely, or names or shapes do not fit.
    """
    return world(read_table(Path(path)), heads=heads, future=future, dropout=dropout, per_round=per_round).eval()


def world(
    tensors: Mapping[str, Tensor],
    *,
    heads: int = 16,
    future: int = 1,
    dropout: float = 0.1,
    per_round: int | None = None,
) -> ObjectWorld:
    """As `load_released`, from tensors.

    Raises:
        BadCheckpoint: If names or shapes do not fit.
    """
    slots = predictor(tensors, heads=heads, future=future, dropout=dropout)
    nodes = {name: _node(tensors, prefix) for name, prefix in NODES.items()}
    return ObjectWorld(slots, action=nodes["action"], felt=nodes["felt"], per_round=per_round or future)


def predictor(
    tensors: Mapping[str, Tensor], *, heads: int = 16, future: int = 1, dropout: float = 0.1
) -> SlotPredictor:
    """The predictor over nodes, from released tensors with or without a prefix.

    Raises:
        BadCheckpoint: If names or shapes do not fit.
    """
    named = _predictor_tensors(tensors)
    _, total, _, width = named["time_pos_embed"].shape
    layers = {int(found[1]) for found in (re.match(r"transformer\.layers\.(\d+)\.", name) for name in named) if found}
    first = named.get("transformer.layers.0.1.1.weight")
    if first is None or width % heads or not 1 <= future < total:
        told = f"width {width}, {heads} heads, {total} times of which {future} are future, {len(layers)} layers"
        raise BadCheckpoint(f"these weights make no Causal-JEPA predictor: {told}")
    made = SlotPredictor(
        SlotSizes(
            width=width, depth=max(layers) + 1, heads=heads, mlp_dim=first.shape[0], history=total - future,
            future=future, dropout=dropout,
        )
    )  # fmt: skip
    fill(made, named, spelling=spelling, title="the predictor of Causal-JEPA")
    return made


def _predictor_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if f"{prefix}time_pos_embed" in tensors:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    raise BadCheckpoint(
        f"these are not weights of Causal-JEPA: time_pos_embed is missing among {', '.join(list(tensors)[:6])}"
    )


def _node(tensors: Mapping[str, Tensor], prefix: str) -> NumbersNode | None:
    plain = {name.removeprefix("model."): value for name, value in tensors.items()}
    found = {f"map.{name.removeprefix(prefix)}": value for name, value in plain.items() if name.startswith(prefix)}
    weight = found.get("map.weight")
    if weight is None:
        return None
    found["map.weight"] = weight.flatten(1)  # a convolution of width one: (D, inputs, 1)
    made = NumbersNode(found["map.weight"].shape[1], width=weight.shape[0])
    fill(made, found, spelling=str, title=f"the node {prefix}* of Causal-JEPA")
    return made
