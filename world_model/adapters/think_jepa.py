"""Released guided predictors of ThinkJEPA: both sets of key names, sizes, and loading."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from jepa_mpc.encoders.adapters.filling import fill
from jepa_mpc.encoders.adapters.names import respell
from jepa_mpc.encoders.adapters.plain import read_table
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.world_model.adapters.vjepa2 import RULES, sizes_of
from jepa_mpc.world_model.parts.predictors.guidance import GUIDANCE, GuidanceSizes
from jepa_mpc.world_model.parts.predictors.guided import GuidedPredictor
from jepa_mpc.world_model.parts.predictors.masked import RotaryMaskedPredictor

HEADS = 6
"""Heads of the published predictor, which the shapes do not determine."""

LATER = (
    (r"^context_adapter\.", "predictor_embed."),
    (r"^query_templates\.", "mask_tokens."),
    (r"^rollout_layers\.", "predictor_blocks."),
    (r"^rollout_norm\.", "predictor_norm."),
    (r"^output_adapter\.", "predictor_proj."),
)
"""Names of the later release -> those of the first, which are V-JEPA 2's."""

GATES = "guidance_layer_scale"
READERS = "guidance_memory_readers"
_GUIDES = (
    (r"^thoughts\.(old|new)\.", r"guidance_\1_adapter."),
    (r"^guides\.(\d+)\.gate$", rf"{GATES}.\1"),
    (r"^guides\.(\d+)\.to_modulation\.", r"guidance_fusion_mlps.\1."),
    (r"^guides\.(\d+)\.prenorm\.", r"guidance_prenorms.\1."),
    (r"^guides\.(\d+)\.query_norm\.", r"guidance_query_norms.\1."),
    (r"^guides\.(\d+)\.reader\.to_qkv\.", rf"{READERS}.\1.in_proj_"),
    (r"^guides\.(\d+)\.reader\.output\.", rf"{READERS}.\1.out_proj."),
)
PREFIXES = ("", "module.", "predictor.", "module.predictor.", "model.predictor.")


def load_released(
    path: str | Path, *, grid: tuple[int, int], heads: int = HEADS, guidance_heads: int | None = None
) -> GuidedPredictor:
    """A released guided predictor in evaluation mode. No code of the file is executed.

    Args:
        path: A weight file.
        grid: Rows and columns of the tokens of one frame; `(N, N)` for N tokens numbers positions as the released code
            does.
        heads: Attention heads.
        guidance_heads: Heads of the cross-attention to the thinker's tokens, if different.

    Raises:
        BadCheckpoint: If the file cannot be read safely, or names or shapes do not fit.
    """
    return predictor(read_table(Path(path)), grid=grid, heads=heads, guidance_heads=guidance_heads).eval()


def predictor(
    tensors: Mapping[str, Tensor],
    *,
    grid: tuple[int, int],
    heads: int = HEADS,
    guidance_heads: int | None = None,
    eps: float = 1e-6,
) -> GuidedPredictor:
    """As `load_released`, from tensors with either set of names, with or without a prefix.

    Args:
        tensors: Released weights.
        grid: Rows and columns of the tokens of one frame.
        heads: Attention heads.
        guidance_heads: Heads of the cross-attention to the thinker's tokens, if different.
        eps: Constant of the unguided predictor's layer norms.

    Raises:
        BadCheckpoint: If names or shapes do not fit.
    """
    named = first_spelling(_bare(tensors))
    inner = replace(sizes_of(named, heads=heads), eps=eps)
    kind, hidden = _kind(named)
    sizes = GuidanceSizes(
        inputs=_need(named, "guidance_old_adapter.weight").shape[1], hidden=hidden, heads=guidance_heads or heads
    )
    with torch.device("meta"):
        made = GuidedPredictor(
            RotaryMaskedPredictor(inner, grid=grid, pairing="tiled"), sizes=sizes, guidance=GUIDANCE[kind]
        )
    fill(made, _stacked(named), spelling=spelling, title=f"a ThinkJEPA predictor guided by {kind}")
    return made


def first_spelling(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights with the names of the first release.

    Raises:
        BadCheckpoint: If a part is there under both names.
    """
    renamed = {respell(name, LATER): value for name, value in tensors.items()}
    if len(renamed) != len(tensors):
        twice = sorted(name for name in tensors if respell(name, LATER) != name and respell(name, LATER) in tensors)
        raise BadCheckpoint(f"these weights hold parts in both spellings: {', '.join(twice[:8])}; keep one of them")
    return renamed


def spelling(name: str) -> str:
    """The name in the first release of one weight of a `GuidedPredictor` (mask tokens and gates joined or split)."""
    inner = name.removeprefix("predictor.")
    return respell(inner, RULES) if inner != name else respell(name, _GUIDES)


def _bare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if f"{prefix}{GATES}" in tensors:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    some = ", ".join(list(tensors)[:6]) or "nothing"
    raise BadCheckpoint(f"these are not weights of a guided ThinkJEPA predictor: {GATES} is missing among {some}")


def _kind(tensors: Mapping[str, Tensor]) -> tuple[str, int]:
    """Kind of guidance, and the width inside the map to scale and shift."""
    if any(name.startswith(f"{READERS}.") for name in tensors):
        return "crossattn", GuidanceSizes(inputs=1).hidden
    kind = "adaln" if any(name.startswith("guidance_prenorms.") for name in tensors) else "film"
    return kind, _need(tensors, "guidance_fusion_mlps.0.1.weight").shape[0]


def _stacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mask tokens as rows of one weight, gates as separate numbers."""
    tokens = sorted(
        (name for name in tensors if re.fullmatch(r"mask_tokens\.\d+", name)), key=lambda name: int(name.split(".")[1])
    )
    rest = {name: value for name, value in tensors.items() if name not in {GATES, *tokens}}
    gates = {f"{GATES}.{index}": gate for index, gate in enumerate(tensors[GATES].flatten())}
    return rest | gates | ({"mask_tokens": torch.stack([tensors[name].flatten() for name in tokens])} if tokens else {})


def _need(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise BadCheckpoint(f"these are not weights of a guided ThinkJEPA predictor: {name} is missing")
    return tensors[name]
