"""Slot encoders in foreign layouts: VideoSAUR (its own files and those inside a Causal-JEPA) and SAVi.

The feature network (a DINOv2) is not included: any image encoder may replace it, but released weights only fit tokens
of the network that they were trained on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from jepa_mpc.encoders.adapters.filling import fill
from jepa_mpc.encoders.adapters.plain import read_table
from jepa_mpc.encoders.layers.slot_attention import LogitScale, NormedStep, SlotAttention, SlotBlock, normed_mlp
from jepa_mpc.encoders.slot_decoder import SlotMixer
from jepa_mpc.encoders.slots import GaussianStart, SlotEncoder, SlotRecurrence
from jepa_mpc.errors import BadCheckpoint, choose

PARTS = {
    "embed": ("feature_mlp.layers.", "encoder.module.output_transform.layers.", "encoder.output_transform.layers."),
    "attend": ("scan.module.corrector.", "processor.module.corrector.", "processor.corrector.", "slot_attention."),
    "step": ("scan.module.predictor.", "processor.module.predictor.", "processor.predictor."),
    "start": ("initializer.",),
    "decoder": ("decoder.module.", "decoder."),
}
"""Possible prefixes of each of our parts in a foreign file, the likeliest first."""

_ATTEND = (
    ("norm_inputs", "norm_features"), ("norm_slots", "norm_slots"), ("to_query", "to_q"), ("to_key", "to_k"),
    ("to_value", "to_v"), ("cell", "gru"),
)  # fmt: skip
_SAVI = (
    ("norm_inputs", "norm_inputs"), ("norm_slots", "project_q.0"), ("to_query", "project_q.1"),
    ("to_key", "project_k"), ("to_value", "project_v"), ("cell", "gru"),
)  # fmt: skip
_BLOCK = (
    ("norm_attention", "norm1"), ("attention.to_qkv", "self_attn.qkv"), ("attention.output", "self_attn.out_proj"),
    ("norm_mlp", "norm2"), ("mlp.0", "linear1"), ("mlp.2", "linear2"),
)  # fmt: skip
_DECODER = (
    ("places", "pos_emb"), ("norm_query", "norm_q"), ("norm_key", "norm_k"), ("to_query", "to_q"), ("to_key", "to_k"),
    ("render", "renderer.layers"), ("output", "output_transform"), ("norm_memory", "norm_memory"),
)  # fmt: skip
_Names = tuple[tuple[str, str], ...]


def load(
    path: str | Path,
    *,
    features: nn.Module,
    num_slots: int,
    iterations: int = 2,
    first: int = 3,
    heads: int = 4,
    logit_scale: LogitScale = "inverse",
) -> SlotEncoder:
    """A whole slot encoder from a VideoSAUR file, or from a Causal-JEPA file that carries one, in evaluation mode.

    Args:
        path: A `.ckpt`, `.pt` or `.safetensors` file of tensors; pickled modules are refused.
        features: The feature network of the file's training, with its weights: maps images to tokens.
        num_slots: Number of slots N, which the shapes do not determine.
        iterations: Attention iterations.
        first: Iterations on the first frame.
        heads: Attention heads of the transition.
        logit_scale: Logit scale of the transition; "inverse" for released files.

    Raises:
        BadCheckpoint: If the file cannot be read safely, or a part is missing or does not fit.
    """
    tensors = read_table(Path(path))
    embed = embedding(part(tensors, "embed"))
    begin = start(part(tensors, "start"), num_slots=num_slots)
    follow = recurrence(tensors, iterations=iterations, first=first, heads=heads, logit_scale=logit_scale)
    width = begin.mean.shape[-1]
    return SlotEncoder(features=features, embed=embed, start=begin, recurrence=follow, slot_dim=width).eval()


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one of our parts in a foreign file, without their prefix.

    Raises:
        UnknownName: If there is no such part.
        BadCheckpoint: If the file lacks it.
    """
    plain = {key.removeprefix("model."): value for key, value in tensors.items()}
    for prefix in choose(PARTS, name, "part"):
        found = {key.removeprefix(prefix): value for key, value in plain.items() if key.startswith(prefix)}
        if found:
            return found
    places = ", ".join(f"{prefix}*" for prefix in PARTS[name])
    raise BadCheckpoint(f"no {name} among {len(tensors)} weights: expected names like {places}")


def slot_attention(tensors: Mapping[str, Tensor], *, iterations: int = 2, eps: float = 1e-8) -> SlotAttention:
    """Slot attention of VideoSAUR, from the tensors of `part(..., "attend")`.

    Raises:
        BadCheckpoint: If a weight is missing, too much or of another shape.
    """
    mlp = tensors.get("mlp.layers.1.weight")
    made = SlotAttention(
        _of(tensors, "to_k.weight").shape[1],
        slot_dim=_of(tensors, "to_q.weight").shape[1],
        inner=tensors["to_q.weight"].shape[0],
        hidden=None if mlp is None else mlp.shape[0],
        iterations=iterations,
        eps=eps,
    )
    fill(made, tensors, spelling=_speller((*_ATTEND, ("mlp", "mlp.layers"))), title="slot attention of VideoSAUR")
    return made


def savi_attention(tensors: Mapping[str, Tensor], *, iterations: int = 2, eps: float = 1e-6) -> SlotAttention:
    """Slot attention of SAVi, whose recurrent cell uses plain slots, with a feed-forward part.

    Raises:
        BadCheckpoint: If a weight is missing, too much or of another shape.
    """
    made = SlotAttention(
        _of(tensors, "project_k.weight").shape[1],
        slot_dim=_of(tensors, "project_q.1.weight").shape[1],
        inner=tensors["project_q.1.weight"].shape[0],
        hidden=_of(tensors, "mlp.1.weight").shape[0],
        iterations=iterations,
        memory="plain",
        eps=eps,
    )
    fill(made, tensors, spelling=_speller((*_SAVI, ("mlp", "mlp"))), title="slot attention of SAVi")
    return made


def savi_step(tensors: Mapping[str, Tensor]) -> NormedStep:
    """The transition of SAVi's slots.

    Raises:
        BadCheckpoint: If a weight is missing, too much or of another shape.
    """
    hidden, width = _of(tensors, "mlp.0.weight").shape
    made = NormedStep(width, hidden=hidden)
    fill(made, tensors, spelling=_speller((("norm", "ln"), ("mlp", "mlp"))), title="the transition of SAVi")
    return made


def transition(tensors: Mapping[str, Tensor], *, heads: int = 4, logit_scale: LogitScale = "inverse") -> nn.Sequential:
    """The blocks between two frames, from the tensors of `part(..., "step")`.

    Raises:
        BadCheckpoint: If a weight is missing, too much or of another shape.
    """
    hidden, width = _of(tensors, "blocks.0.linear1.weight").shape
    depth = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    made = nn.Sequential(*(SlotBlock(width, heads=heads, hidden=hidden, logit_scale=logit_scale) for _ in range(depth)))
    spelling = _speller(tuple((f"{i}.{ours}", f"blocks.{i}.{theirs}") for i in range(depth) for ours, theirs in _BLOCK))
    fill(made, tensors, spelling=spelling, title="the transition of VideoSAUR")
    return made


def embedding(tensors: Mapping[str, Tensor]) -> nn.Sequential:
    """The feature map in front of slot attention, from the tensors of `part(..., "embed")`.

    Raises:
        BadCheckpoint: If a weight is missing, too much or of another shape.
    """
    hidden, width = _of(tensors, "1.weight").shape
    made = normed_mlp(width, hidden=hidden, output=_of(tensors, "3.weight").shape[0])
    fill(made, tensors, spelling=str, title="the feature map of VideoSAUR")
    return made


def start(tensors: Mapping[str, Tensor], *, num_slots: int) -> GaussianStart:
    """The initial slots, from the tensors of `part(..., "start")`.

    Raises:
        BadCheckpoint: If a weight is missing, too much or of another shape.
    """
    made = GaussianStart(num_slots, slot_dim=_of(tensors, "mean").shape[-1])
    flat = {name: value.reshape(1, 1, -1) for name, value in tensors.items()}
    fill(made, flat, spelling=str, title="the initial slots of VideoSAUR")
    return made


def recurrence(
    tensors: Mapping[str, Tensor],
    *,
    iterations: int = 2,
    first: int = 3,
    heads: int = 4,
    logit_scale: LogitScale = "inverse",
) -> SlotRecurrence:
    """Attention and transition of a whole VideoSAUR file.

    Raises:
        BadCheckpoint: If a part is missing or does not fit.
    """
    return SlotRecurrence(
        slot_attention(part(tensors, "attend"), iterations=iterations),
        step=transition(part(tensors, "step"), heads=heads, logit_scale=logit_scale),
        first=first,
    )


def mixer(tensors: Mapping[str, Tensor], *, heads: int = 4, logit_scale: LogitScale = "inverse") -> SlotMixer:
    """The decoder, from the tensors of `part(..., "decoder")`.

    Raises:
        BadCheckpoint: If a weight is missing, too much or of another shape.
    """
    _, places, width = _of(tensors, "pos_emb").shape
    layers = sorted({int(name.split(".")[2]) for name in tensors if name.startswith("renderer.layers.")})
    depth = 1 + max((int(name.split(".")[2]) for name in tensors if name.startswith("allocator.blocks.")), default=-1)
    with torch.device("meta"):
        made = SlotMixer(
            width,
            num_places=places,
            output_dim=_of(tensors, "output_transform.weight").shape[0],
            heads=heads,
            depth=depth,
            hidden=[tensors[f"renderer.layers.{layer}.weight"].shape[0] for layer in layers],
            logit_scale=logit_scale,
        )
    blocks = tuple(
        (f"blocks.{i}.{ours}", f"allocator.blocks.{i}.{theirs}") for i in range(depth) for ours, theirs in _BLOCK
    )
    fill(made, tensors, spelling=_speller((*blocks, *_DECODER)), title="the decoder of VideoSAUR")
    return made


def _speller(names: _Names) -> Callable[[str], str]:
    def spelled(name: str) -> str:
        for ours, theirs in names:
            changed, hits = re.subn(rf"^{re.escape(ours)}(?=\.|$)", theirs, name)
            if hits:
                return changed
        return name

    return spelled


def _of(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise BadCheckpoint(f"not a slot encoder of that kind: {name} is missing among {', '.join(list(tensors)[:6])}")
    return tensors[name]
