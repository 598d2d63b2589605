"""The published layout of ACT-JEPA: its key names and its sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from jepa_mpc.checkpoint import load_strict
from jepa_mpc.encoders.feature_grid import FeatureGrid
from jepa_mpc.encoders.resnet import ResNet, basic, bottleneck
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.world_model.parts.objectives.chunk import ChunkObjective
from jepa_mpc.world_model.parts.predictors.chunk import ChunkSizes

# Published name -> our name, in this order.
_RENAMES = (
    (r"^jepa\.context_encoder\.img_emb\.embedder\.embedder\.", "encoder.trunk.stem."),
    (r"^jepa\.context_encoder\.img_emb\.encoder\.", "encoder.trunk."),
    (r"\.stages\.(\d+)\.layers\.(\d+)\.layer\.", r".stages.\1.\2.layers."),
    (r"\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.", r".stages.\1.\2.shortcut."),
    (r"^jepa\.context_encoder\.img_proj\.", "encoder.project."),
    (r"^jepa\.context_encoder\.", "context."),
    (r"^jepa\.target_encoder\.", "target.encoder."),
    (r"^jepa\.predictor\.in_proj\.", "latents.enter."),
    (r"^jepa\.predictor\.out_proj\.", "latents.leave."),
    (r"^jepa\.predictor\.", "latents.decoder."),
    (r"^decoder\.", "decoder.decoder."),
    (r"^action_head\.", "decoder.head."),
    (r"\.convolution\.", ".conv."),
    (r"\.normalization\.", ".norm."),
    (r"\.layers\.(\d+)\.(self_attn|cross_attn|mlp|norm\d)\.", r".blocks.\1.\2."),
    (r"\.self_attn\.attention_interface\.in_proj_(weight|bias)$", r".attention.to_qkv.\1"),
    (r"\.self_attn\.attention_interface\.out_proj\.", ".attention.output."),
    (r"\.cross_attn\.attention_interface\.in_proj_(weight|bias)$", r".cross.to_qkv.\1"),
    (r"\.cross_attn\.attention_interface\.out_proj\.", ".cross.output."),
    (r"\.up_proj\.", ".up."),
    (r"\.down_proj\.", ".down."),
    (r"\.norm1\.", ".norm_attention."),
    (r"\.task_emb\.", ".task."),
    (r"\.state_emb\.", ".state."),
    (r"\.pos_emb$", ".queries"),
)  # fmt: skip
_UNUSED = re.compile(r"^jepa\.target_encoder\.img_")  # the published target has an unused image branch


def from_released(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names for published tensors; unused ones are dropped."""
    return {renamed(name): tensor for name, tensor in tensors.items() if not _UNUSED.match(name)}


def renamed(name: str) -> str:
    """Our name for one published name."""
    for pattern, ours in _RENAMES:
        name = re.sub(pattern, ours, name)
    last = "norm_mlp" if re.match(r"^(context|target)\.", name) else "norm_cross"  # an encoder block has two norms
    return name.replace(".norm2.", f".{last}.").replace(".norm3.", ".norm_mlp.")


def fill(objective: ChunkObjective, tensors: Mapping[str, Tensor]) -> None:
    """Copy published weights into an objective, all or nothing.

    Raises:
        BadCheckpoint: If a tensor is missing, unexpected or of another shape; lists all of them.
    """
    load_strict(objective, from_released(tensors), "ACT-JEPA")


def sizes_of(tensors: Mapping[str, Tensor], *, heads: int, dropout: float = 0.1) -> ChunkSizes:
    """Sizes of the networks from published tensors; the number of heads is not in them.

    Raises:
        BadCheckpoint: If a tensor that determines a size is missing.
    """
    ours = from_released(tensors)
    try:
        tasks, width = ours["context.task.weight"].shape
        chunk, horizon = (len(ours[name]) for name in ("decoder.decoder.queries", "latents.decoder.queries"))
        return ChunkSizes(
            width=width,
            depth=_count(ours, r"context\.blocks\.(\d+)\."),
            heads=heads,
            hidden=len(ours["context.blocks.0.mlp.up.weight"]),
            narrow=len(ours["latents.enter.weight"]),
            narrow_depth=_count(ours, r"latents\.decoder\.blocks\.(\d+)\."),
            narrow_hidden=len(ours["latents.decoder.blocks.0.mlp.up.weight"]),
            decoder_depth=_count(ours, r"decoder\.decoder\.blocks\.(\d+)\."),
            chunk=chunk,
            horizon=horizon,
            num_tasks=tasks,
            dropout=dropout,
        )
    except KeyError as error:
        raise BadCheckpoint(f"these are not the weights of an ACT-JEPA: {error} is missing") from error


def picture_encoder(tensors: Mapping[str, Tensor]) -> FeatureGrid:
    """An image branch with the sizes of published tensors, which also determine the kind of its blocks.

    Raises:
        BadCheckpoint: If there is no such branch.
    """
    ours = from_released(tensors)
    stages = _count(ours, r"encoder\.trunk\.stages\.(\d+)\.")
    depths = [_count(ours, rf"encoder\.trunk\.stages\.{stage}\.(\d+)\.") for stage in range(stages)]
    last = _count(ours, r"encoder\.trunk\.stages\.0\.0\.layers\.(\d+)\.") - 1
    kind: Any = bottleneck if last == 2 else basic
    widths = [len(ours[f"encoder.trunk.stages.{stage}.0.layers.{last}.conv.weight"]) for stage in range(stages)]
    stem, channels = ours["encoder.trunk.stem.conv.weight"].shape[:2]
    trunk = ResNet(stem=stem, widths=widths, depths=depths, block=kind, channels=channels)
    return FeatureGrid(trunk, width=len(ours["encoder.project.weight"]))


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """Number of parts indexed where the pattern has a number."""
    numbers = {int(match.group(1)) for match in (re.match(pattern, name) for name in tensors) if match}
    if not numbers:
        raise BadCheckpoint(f"these are not the weights of an ACT-JEPA: nothing is named {pattern}")
    return max(numbers) + 1
