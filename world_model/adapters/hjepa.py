"""Weights of the public hierarchical JEPA into the parts of `objectives.legacy_pyramid`, and back."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from jepa_mpc.encoders.adapters.filling import fill
from jepa_mpc.encoders.adapters.names import respell, single_norm_spelling
from jepa_mpc.encoders.vit import VisionTransformer
from jepa_mpc.world_model.parts.objectives.legacy_pyramid import BorrowedPlaces, LegacyPyramidObjective

UNUSED = ("predictor.pos_embed_predictor",)
"""A vector for mask tokens without positions, which the public model lacks."""
ENCODER = ((r"^summary$", "cls_token"), (r"^positions$", "pos_embed"))
PREDICTOR = (
    (r"^mask_tokens$", "mask_token"),
    (r"^to_wanted\.", "head."),
    (r"^blocks\.(\d+)\.norm_attention\.", r"blocks.\1.norm1."),
    (r"^blocks\.(\d+)\.norm_mlp\.", r"blocks.\1.norm2."),
    (r"^blocks\.(\d+)\.attention\.to_qkv\.", r"blocks.\1.attn.in_proj_"),
    (r"^blocks\.(\d+)\.attention\.output\.", r"blocks.\1.attn.out_proj."),
    (r"^blocks\.(\d+)\.mlp\.up\.", r"blocks.\1.mlp.0."),
    (r"^blocks\.(\d+)\.mlp\.down\.", r"blocks.\1.mlp.3."),
)
PYRAMID = (
    (r"^heads\.", "hierarchy_projections."),
    (r"^lateral\.", "fpn_lateral_convs."),
    (r"^down\.", "fpn_top_down_convs."),
    (r"^fuse\.", "fpn_fusion_convs."),
)


def fill_objective(objective: LegacyPyramidObjective, tensors: Mapping[str, Tensor]) -> None:
    """Load the weights of a public state dictionary into the parts of an objective, if they match one to one.

    Raises:
        BadCheckpoint: If a name is missing, unexpected or of another shape.
    """
    target = objective.target.encoder
    assert isinstance(target, VisionTransformer)
    sections = {
        "context_encoder.vit.": objective.encoder,
        "target_encoder.vit.": target,
        "predictor.": objective.predictor,
    }
    rest = {name: value for name, value in tensors.items() if not name.startswith(tuple(sections))}
    for prefix, module in sections.items():
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        own = {name: value for name, value in own.items() if prefix + name not in UNUSED}
        if isinstance(module, BorrowedPlaces) and "mask_token" in own:
            own["mask_token"] = own["mask_token"][0]
        spelling = predictor_spelling if isinstance(module, BorrowedPlaces) else encoder_spelling
        fill(module, own, spelling=spelling, title=f"{prefix.rstrip('.')} of the pyramid")
    fill(objective.pyramid, rest, spelling=pyramid_spelling, title="the pyramid")
    target.requires_grad_(False)


def encoder_spelling(name: str) -> str:
    """The public name of a weight of the encoder."""
    changed = respell(name, ENCODER)
    return name if name.startswith("norm.") else changed if changed != name else single_norm_spelling(name)


def predictor_spelling(name: str) -> str:
    """The public name of a weight of the predictor."""
    return respell(name, PREDICTOR)


def pyramid_spelling(name: str) -> str:
    """The public name of a weight of the pyramid."""
    return respell(name, PYRAMID)
