"""Released masked predictors of I-JEPA and V-JEPA 1, 2 and 2.1: key names, sizes, and loading."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from jepa_mpc.encoders.adapters import placed
from jepa_mpc.encoders.adapters import vjepa2 as rotary
from jepa_mpc.encoders.adapters.files import Released
from jepa_mpc.encoders.adapters.filling import fill
from jepa_mpc.encoders.adapters.names import block_rules, respell
from jepa_mpc.encoders.placed import TABLES, PlacedForm
from jepa_mpc.encoders.release import Release
from jepa_mpc.encoders.released import PRETRAINING_PIXELS, vjepa2_1
from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.world_model.parts.predictors.masked import (
    DenseMaskedPredictor,
    MaskedPredictor,
    MaskedSizes,
    RotaryMaskedPredictor,
    TablePlaces,
)

POSITION_TABLE = "predictor_pos_embed"
"""The table of positional embeddings: used by I-JEPA and V-JEPA; some files of later predictors have an unused one."""

HEADS = 12
"""Heads of all released predictors of V-JEPA 2 and 2.1, not given by shapes; earlier ones have the encoder's."""

TAGS = {"video_mod_embed": 0, "img_mod_embed": 1}
RULES = (
    *block_rules("blocks", "predictor_blocks"),
    (r"^embed\.", "predictor_embed."),
    (r"^norm\.", "predictor_norm."),
    (r"^to_wanted\.", "predictor_proj."),
    (r"^to_seen\.", "predictor_proj_context."),
    (r"^places\.table$", POSITION_TABLE),
)


def predictor_spelling(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' names for the weights of one of our predictors (or their gradients)."""
    spelled: dict[str, Tensor] = {}
    for name, value in state.items():
        if name == "mask_tokens":
            spelled |= {f"mask_tokens.{index}": token[None, None] for index, token in enumerate(value)}
        elif name == "tags":
            spelled |= {their: value[index][None, None] for their, index in TAGS.items()}
        else:
            spelled[respell(name, RULES)] = value
    return spelled


def fill_predictor(predictor: MaskedPredictor, tensors: Mapping[str, Tensor], *, title: str = "predictor") -> None:
    """Load released weights into a predictor if, and only if, names and shapes match one to one.

    Args:
        predictor: One of ours; may be on the meta device, except for a table of positional embeddings, which is used if
            the file has none.
        tensors: Weights with the authors' names, without prefixes.
        title: Name of the predictor in the error message.

    Raises:
        BadCheckpoint: If a name is missing, unexpected or of another shape; lists all of them.
    """
    weights = numbered_masks(tensors)
    if isinstance(predictor.places, TablePlaces):
        weights[POSITION_TABLE] = weights.get(POSITION_TABLE, predictor.places.table[None])[0]
    joined = _join(_join(weights, "mask_tokens", _numbered(weights, "mask_tokens")), "tags", list(TAGS))
    fill(
        predictor,
        joined,
        spelling=lambda name: respell(name, RULES),
        title=title,
        ignored=(POSITION_TABLE,),
    )


def numbered_masks(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the single mask token of I-JEPA named as the first of several."""
    return {"mask_tokens.0" if name == "mask_token" else name: value for name, value in tensors.items()}


def sizes_of(tensors: Mapping[str, Tensor], *, heads: int = HEADS) -> MaskedSizes:
    """Sizes of a released predictor from the shapes of its weights.

    Args:
        tensors: With the authors' names.
        heads: Attention heads.

    Raises:
        BadCheckpoint: If a weight that determines a size is missing.
    """
    two_layers = "predictor_embed.2.weight" in tensors
    first = _need(tensors, "predictor_embed.0.weight" if two_layers else "predictor_embed.weight")
    numbers = [int(match[1]) for name in tensors if (match := re.match(r"predictor_blocks\.(\d+)\.", name))]
    return MaskedSizes(
        inputs=first.shape[1],
        outputs=_need(tensors, "predictor_proj.weight").shape[0],
        width=_need(tensors, "predictor_norm.weight").shape[0],
        depth=1 + max(numbers, default=-1),
        heads=heads,
        mlp_dim=_need(tensors, "predictor_blocks.0.mlp.fc1.weight").shape[0],
        mask_tokens=len(_numbered(tensors, "mask_tokens")),
        hidden=first.shape[0] if two_layers else None,
    )


def load_predictor(released: Released, *, image: int = PRETRAINING_PIXELS, heads: int | None = None) -> MaskedPredictor:
    """The masked predictor of a released encoder, in evaluation mode.

    The positions of a V-JEPA 2.1 predictor are stretched as in its training; its public loader does not stretch them,
    and the file does not say which the weights expect.

    Args:
        released: A file that was read.
        image: Side of its input images, in pixels; a table of positional embeddings determines its own.
        heads: Attention heads, if not those of the released ones.

    Raises:
        BadCheckpoint: If the file has no predictor, or weights that do not fit.
    """
    if not released.predictor:
        raise BadCheckpoint(f"{released.source} holds an encoder and no predictor: take the authors' .pt file")
    first = placed.fits(released)
    encoder = placed.describe(released, heads=heads) if first else rotary.describe(released)
    usual = encoder.sizes.heads if first else HEADS
    sizes = sizes_of(numbered_masks(released.predictor), heads=heads or usual)
    predictor = _network(encoder, sizes, image)
    fill_predictor(predictor, released.predictor, title=f"the predictor of {released.source}")
    return predictor.eval()


def _network(encoder: Release, sizes: MaskedSizes, image: int) -> MaskedPredictor:
    form, patch = encoder.form, encoder.sizes.patch
    if isinstance(form, PlacedForm) and isinstance(encoder.sizes, VideoSizes):
        with torch.device("meta"):
            grid = form(encoder.sizes).native
        places = TablePlaces(TABLES[form.table](grid, sizes.width))
        with torch.device("meta"):
            return MaskedPredictor(sizes, places)
    cells = (image // patch,) * 2
    with torch.device("meta"):
        if form is vjepa2_1:
            return DenseMaskedPredictor(sizes, grid=cells, span=PRETRAINING_PIXELS // patch)
        return RotaryMaskedPredictor(sizes, grid=cells)


def _numbered(tensors: Mapping[str, Tensor], name: str) -> list[str]:
    found = [key for key in tensors if re.fullmatch(rf"{name}\.\d+", key)]
    return sorted(found, key=lambda key: int(key.rpartition(".")[2]))


def _join(tensors: Mapping[str, Tensor], name: str, parts: list[str]) -> dict[str, Tensor]:
    """Separate vectors in the file as rows of one of our weights; unchanged if one is missing."""
    if not parts or any(part not in tensors for part in parts):
        return dict(tensors)
    rest = {key: value for key, value in tensors.items() if key not in parts}
    return rest | {name: torch.stack([tensors[part].flatten() for part in parts])}


def _need(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise BadCheckpoint(f"these are not the weights of a masked predictor: {name} is missing")
    return tensors[name]
