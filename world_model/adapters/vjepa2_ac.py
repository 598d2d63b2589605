"""The released layout of V-JEPA 2-AC's predictor: key names, sizes, and an unused table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from jepa_mpc.checkpoint import load_strict
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.world_model.parts.poses import PoseReader
from jepa_mpc.world_model.parts.predictors.block_causal import BlockCausalPredictor, BlockCausalSizes

# Released name -> our name, the first match is used.
RELEASED_TO_OURS = (
    (r"^predictor_embed\.", "patches."),
    (r"^action_encoder\.", "motion."),
    (r"^state_encoder\.", "pose."),
    (r"^extrinsics_encoder\.", "camera."),
    (r"^predictor_blocks\.(\d+)\.norm1\.", r"blocks.\1.norm_attention."),
    (r"^predictor_blocks\.(\d+)\.norm2\.", r"blocks.\1.norm_mlp."),
    (r"^predictor_blocks\.(\d+)\.attn\.qkv\.", r"blocks.\1.attention.to_qkv."),
    (r"^predictor_blocks\.(\d+)\.attn\.proj\.", r"blocks.\1.attention.output."),
    (r"^predictor_blocks\.(\d+)\.mlp\.fc1\.", r"blocks.\1.mlp.up."),
    (r"^predictor_blocks\.(\d+)\.mlp\.fc2\.", r"blocks.\1.mlp.down."),
    (r"^predictor_norm\.", "norm."),
    (r"^predictor_proj\.", "output."),
)
WRAPPERS = ("module.", "backbone.")
CAMERA = "camera."
HEAD_DIM = 64  # of the released model, whose file lacks the number of heads
SIDE = 16  # patches per side of the released 256 px images


def from_released(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names for a released predictor's tensors, with or without the prefixes of a trainer.

    Raises:
        BadCheckpoint: If a name does not belong to such a predictor.
    """
    ours = {}
    for name, tensor in tensors.items():
        plain = name
        for wrapper in WRAPPERS:
            plain = plain.replace(wrapper, "")
        ours[_renamed(plain)] = tensor
    return ours


def to_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Released names for our predictor's tensors (or their gradients)."""
    pairs = [(_pattern(ours), _template(released)) for released, ours in RELEASED_TO_OURS]
    found = {}
    for name, tensor in state.items():
        for pattern, template in pairs:
            renamed, hits = re.subn(pattern, template, name)
            if hits:
                found[renamed] = tensor
                break
        else:
            raise BadCheckpoint(f"{name} has no place in the released layout of V-JEPA 2-AC")
    return found


def sizes_of(
    tensors: Mapping[str, Tensor],
    *,
    heads: int | None = None,
    rows: int = SIDE,
    columns: int = SIDE,
    cameras: bool = False,
) -> BlockCausalSizes:
    """Sizes of a predictor from its tensors (our names).

    Args:
        tensors: The weights.
        heads: Attention heads; by default 64 channels each, as released.
        rows: Rows of patches in a frame, which the file lacks.
        columns: Columns of patches.
        cameras: Whether the camera pose is a token.

    Raises:
        BadCheckpoint: If a tensor that determines a size is missing.
    """
    for name in ("patches.weight", "blocks.0.mlp.up.weight"):
        if name not in tensors:
            raise BadCheckpoint(f"these are not the weights of a V-JEPA 2-AC predictor: {name} is missing")
    width, state_dim = tensors["patches.weight"].shape
    numbers = [int(match.group(1)) for match in (re.match(r"blocks\.(\d+)\.", name) for name in tensors) if match]
    return BlockCausalSizes(
        state_dim=state_dim,
        rows=rows,
        columns=columns,
        width=width,
        depth=max(numbers) + 1,
        heads=heads or max(1, width // HEAD_DIM),
        mlp_dim=tensors["blocks.0.mlp.up.weight"].shape[0],
        cameras=cameras,
    )


def fill(predictor: BlockCausalPredictor, tensors: Mapping[str, Tensor]) -> None:
    """Copy released weights into a predictor, all or nothing.

    Released files always have weights of the camera token: a predictor without that token drops them.

    Raises:
        BadCheckpoint: If a tensor is missing, unexpected or of another shape; lists all of them.
    """
    ours = from_released(tensors)
    if predictor.camera is None:
        ours = {name: tensor for name, tensor in ours.items() if not name.startswith(CAMERA)}
    load_strict(predictor, ours, "a V-JEPA 2-AC predictor")


def load_predictor(
    tensors: Mapping[str, Tensor],
    *,
    heads: int | None = None,
    rows: int = SIDE,
    columns: int = SIDE,
    window: int = 1,
    reader: PoseReader | None = None,
) -> BlockCausalPredictor:
    """A predictor with the sizes of the released weights, filled with them, in evaluation mode.

    Raises:
        BadCheckpoint: If they do not fit such a predictor.
    """
    ours = from_released(tensors)
    sizes = replace(sizes_of(ours, heads=heads, rows=rows, columns=columns), window=window)
    predictor = BlockCausalPredictor(sizes, reader=reader).to(ours["patches.weight"].dtype)
    fill(predictor, tensors)
    return predictor.eval()


def _renamed(name: str) -> str:
    for pattern, ours in RELEASED_TO_OURS:
        renamed, hits = re.subn(pattern, ours, name)
        if hits:
            return renamed
    raise BadCheckpoint(f"{name} is no weight of a V-JEPA 2-AC predictor: another model's file?")


def _pattern(ours: str) -> str:
    return "^" + re.escape(ours).replace(re.escape(r"\1"), r"(\d+)")


def _template(released: str) -> str:
    return released.lstrip("^").replace(r"(\d+)", r"\1").replace(r"\.", ".")
