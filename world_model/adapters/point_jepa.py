"""Released predictors of Point-JEPA: their key names, and loading."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from jepa_mpc.encoders.adapters.filling import fill
from jepa_mpc.encoders.adapters.names import block_rules, respell
from jepa_mpc.world_model.parts.predictors.masked import MaskedPredictor

PREFIX = "predictor."
UNUSED = ("predictor.predictor_norm.weight", "predictor.predictor_norm.bias")
"""Weights of an unused norm in the authors' network."""

RULES = (
    *block_rules("blocks", "predictor.predictor.blocks"),
    (r"^embed\.", "predictor.predictor_embed."),
    (r"^norm\.", "predictor.predictor.norm."),
    (r"^to_wanted\.", "predictor.predictor_proj."),
    (r"^places\.net\.", "predictor.positional_encoding."),
    (r"^mask_tokens$", "predictor.mask_token"),
)


def released_name(name: str) -> str:
    """The authors' name of one of our weights."""
    return respell(name, RULES)


def fill_predictor(predictor: MaskedPredictor, tensors: Mapping[str, Tensor], *, title: str = "predictor") -> None:
    """Load released weights into a predictor if, and only if, names and shapes match one to one.

    Args:
        predictor: One with `CloudPlaces`; may be on the meta device.
        tensors: Weights with the authors' names; those of other parts are ignored.
        title: Name of the predictor in the error message.

    Raises:
        BadCheckpoint: If a name is missing, unexpected or of another shape; lists all of them.
    """
    own = {name: x for name, x in tensors.items() if name.startswith(PREFIX)}
    mask = "predictor.mask_token"
    own |= {mask: own[mask].flatten(0, -2)} if mask in own else {}
    fill(predictor, own, spelling=released_name, title=title, ignored=UNUSED)
