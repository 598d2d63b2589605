"""Key names of released files of the JEPA family: those of the authors, and those of Hugging Face."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from jepa_mpc.errors import BadCheckpoint

Rules = Iterable[tuple[str, str]]

_BLOCK = (
    ("norm_attention", "norm1"),
    ("attention.to_qkv", "attn.qkv"),
    ("attention.output", "attn.proj"),
    ("norm_mlp", "norm2"),
    ("mlp.up", "mlp.fc1"),
    ("mlp.down", "mlp.fc2"),
)


def block_rules(ours: str, theirs: str) -> tuple[tuple[str, str], ...]:
    """Rename rules for a list of `RotaryBlock` called `ours` here and `theirs` in the authors' files."""
    return tuple(
        (rf"^{re.escape(ours)}\.(\d+)\.{re.escape(part)}\.", rf"{theirs}.\1.{their_part}.")
        for part, their_part in _BLOCK
    )


def respell(name: str, rules: Rules) -> str:
    """The released name of one of our weights.

    Args:
        name: Our name.
        rules: Pairs of a pattern over our names and its replacement; the first match is used. A name without a match is
            the same in both.
    """
    for pattern, replacement in rules:
        changed, hits = re.subn(pattern, replacement, name)
        if hits:
            return changed
    return name


ENCODER_RULES = (
    *block_rules("blocks", "blocks"),
    (r"^patches\.", "patch_embed.proj."),
    (r"^pictures\.patches\.", "patch_embed_img.proj."),
    (r"^pictures\.clip_mark$", "video_mod_embed"),
    (r"^pictures\.picture_mark$", "img_mod_embed"),
)


def encoder_spelling(name: str) -> str:
    """The authors' name of a weight of an encoder with several norms (V-JEPA 2.1)."""
    return respell(name, ((r"^norms\.", "norms_block."), *ENCODER_RULES))


def single_norm_spelling(name: str) -> str:
    """The authors' name of a weight of an encoder with one norm (V-JEPA 2)."""
    return respell(name, ((r"^norms\.0\.", "norm."), *ENCODER_RULES))


def placed_spelling(name: str) -> str:
    """The authors' name of a weight of an encoder with a table of positional embeddings (I-JEPA, V-JEPA)."""
    return "pos_embed" if name == "positions" else single_norm_spelling(name)


def without_prefixes(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Names without the wrappers of training (`module.`, `backbone.`), anywhere in the name.

    Raises:
        BadCheckpoint: If two names become equal.
    """
    plain = {name.replace("module.", "").replace("backbone.", ""): value for name, value in tensors.items()}
    if len(plain) != len(tensors):
        raise BadCheckpoint(f"{source} holds {len(tensors) - len(plain)} weights twice, with and without a prefix")
    return plain


_HUGGING_FACE = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^layernorm\.", "norm."),
    *(
        (rf"^(?:encoder\.)?layers?\.(\d+)\.{theirs}\.", rf"blocks.\1.{ours}.")
        for theirs, ours in (
            (r"(?:attention\.)?attn\.qkv", "attn.qkv"),
            (r"attention\.(?:output\.dense|o_proj)", "attn.proj"),
            ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"),
            (r"intermediate\.dense", "mlp.fc1"),
            (r"output\.dense", "mlp.fc2"),
        )
    ),
    (r"^layers\.", "blocks."),
    (r"^encoder\.embeddings\.patch_embeddings\.", "patch_embed."),
    (r"^encoder\.layer\.", "blocks."),
    (r"^encoder\.layernorm\.", "norm."),
    (r"^predictor\.embeddings\.predictor_embeddings\.", "predictor_embed."),
    (r"^predictor\.layer\.", "predictor_blocks."),
    (r"^predictor\.layernorm\.", "predictor_norm."),
    (r"^predictor\.proj\.", "predictor_proj."),
)
SHORT = {"q_proj": "query", "k_proj": "key", "v_proj": "value"}
_MASK_TOKENS = "predictor.embeddings.mask_tokens"


def from_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of the Hugging Face layout to the authors' names; queries, keys and values are joined, mask tokens split.

    A name without a counterpart in the authors' layout is kept, so that a strict load reports it.

    Raises:
        BadCheckpoint: If a block has some but not all of its queries, keys and values.
    """
    plain = {re.sub(r"^(vjepa2|ijepa|dinov2)\.", "", name): value for name, value in tensors.items()}
    stacked = plain.pop(_MASK_TOKENS, None)
    joined = {respell(name, _HUGGING_FACE): value for name, value in _join_qkv(plain).items()}
    joined = {name.replace(".attention.proj.", ".attn.proj."): value for name, value in joined.items()}
    if stacked is not None:
        joined |= {f"mask_tokens.{index}": token for index, token in enumerate(stacked.unbind(0))}
    return joined


def _join_qkv(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    joined: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        match = re.fullmatch(r"(.*\.)attention\.(query|key|value|[qkv]_proj)\.(weight|bias)", name)
        if match:
            parts.setdefault(f"{match[1]}attn.qkv.{match[3]}", {})[SHORT.get(match[2], match[2])] = value
        else:
            joined[name] = value
    for name, found in parts.items():
        lost = [part for part in ("query", "key", "value") if part not in found]
        if lost:
            raise BadCheckpoint(f"the attention of {name.removesuffix('.attn.qkv.weight')} has no {', '.join(lost)}")
        joined[name] = torch.cat([found[part] for part in ("query", "key", "value")])
    return joined
