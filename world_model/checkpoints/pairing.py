"""Any encoder in front of any predictor: a system's configuration with another encoder and what that one asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import torch

from jepa_mpc.encoders.layers.pixels import NormalisePixels
from jepa_mpc.errors import choose
from jepa_mpc.world_model.checkpoints.assembly import PARTS, TARGET, assemble
from jepa_mpc.world_model.checkpoints.token_forms import OF_PICTURES, TokenForm, form_of

Entries = dict[str, Any]
THOUGHTS = 4
"""Depths of an encoder that a stand-in for a thinker looks at."""


def paired(system: Mapping[str, Any], encoder: Mapping[str, Any], *, picture: tuple[int, int, int]) -> Entries:
    """A system's configuration with another encoder in place of its own: all entries of the former one go.

    The encoder is built once to see what tokens it gives; the predictor's sizes follow from them.

    Args:
        system: The configuration.
        encoder: That of the encoder, as `assemble` takes it.
        picture: Channels, height and width of the log's pictures.

    Raises:
        UnknownName: If there is no such system or encoder.
        ValueError: If they do not go together; says why, and what would.
    """
    name, title = str(system[TARGET]), title_of(encoder)
    choose(PARTS, str(encoder.get(TARGET)), "encoder")
    if "encoder" not in signature(choose(PARTS, name, "system")).parameters and name not in FITTED:
        begin = f"; to begin with released weights, choose its preset of that size and give pretrained={title}"
        raise ValueError(f"encoder={title}: {name} builds its own encoder{begin if 'model' in encoder else ''}")
    try:
        form = measured(system, encoder, picture=picture)
        fitted = FITTED[name](system, form) if name in FITTED else {}
    except ValueError as error:
        raise ValueError(f"encoder={title} does not go with {name}: {error}") from error
    return {**system, **fitted, "encoder": dict(encoder)}


def measured(system: Mapping[str, Any], encoder: Mapping[str, Any], *, picture: tuple[int, int, int]) -> TokenForm:
    """What tokens an encoder gives for pictures that are prepared as the system prepares them.

    Raises:
        ValueError: If it takes no such pictures.
    """
    prepare = assemble(system["preprocess"]) if system.get("preprocess") else NormalisePixels()
    seen = prepare(torch.zeros(1, *picture, dtype=torch.uint8))
    with torch.device("meta" if encoder[TARGET] == "released_encoder" else "cpu"):  # large ones only have shapes here
        built = assemble(encoder)
    return form_of(built, seen)


def title_of(encoder: Mapping[str, Any]) -> str:
    """What an encoder's configuration is called in messages: the release, the system it belongs to, or the part."""
    inner = encoder.get("system")
    return str(encoder.get("model") or (inner[TARGET] if isinstance(inner, Mapping) else encoder.get(TARGET)))


def _states(system: Mapping[str, Any], form: TokenForm) -> Entries:
    """LeWorldModel: every token is a part of the state."""
    if form.count == 1:
        return {"num_tokens": 1}
    return {"num_tokens": form.count, "extra": [_measuring(entry, form) for entry in system.get("extra") or ()]}


def _measuring(entry: Any, form: TokenForm) -> Any:
    """A displacement head for states of several tokens; other extra terms stay as they are."""
    name, weight, part = entry
    if part.get(TARGET) != "hindsight_displacement" or part.get("look"):
        return entry
    width = part["width"]
    if form.grid is None:
        return [name, weight, {**part, "width": form.count * width}]
    rows, columns = form.grid
    look = {TARGET: "token_places", "width": width, "rows": rows, "columns": columns, "output": width}
    return [name, weight, {**part, "look": look}]


def _grid(system: Mapping[str, Any], form: TokenForm) -> Entries:
    """V-JEPA 2-AC: tokens have rows and columns."""
    if form.grid is None:
        raise ValueError(
            "its predictor turns tokens by rows and columns, which objects have not: take leworldmodel, act_jepa "
            f"or causal_jepa, or an encoder of a grid ({OF_PICTURES})"
        )
    return {"state_dim": form.width, "grid": list(form.grid)}


def _thoughts(system: Mapping[str, Any], form: TokenForm) -> Entries:
    """ThinkJEPA: a grid, and a stand-in for a thinker that looks at the encoder's own depths."""
    step = max(1, len(form.depths) // THOUGHTS)
    at = list(form.depths[step - 1 :: step][:THOUGHTS]) or None
    return {**_grid(system, form), "thinker": {TARGET: "depth_tokens", "at": at}}


def _objects(system: Mapping[str, Any], form: TokenForm) -> Entries:
    """Causal-JEPA: slots, or slots over the tokens of a grid."""
    if form.grid is not None and form.count < 2:
        raise ValueError(
            "objects are bound to the tokens of a picture, and it gives one for all: take leworldmodel, "
            "vjepa2_ac or act_jepa, or an encoder of many tokens (resnet_grid, ijepa_small, vjepa2_small, ...)"
        )
    return {}


def _rebuilt(system: Mapping[str, Any], form: TokenForm) -> Entries:
    """Slots from video: as many places are rebuilt as the encoder gives tokens."""
    return _objects(system, form) | ({} if form.grid is None else {"places": form.count})


def _anything(system: Mapping[str, Any], form: TokenForm) -> Entries:
    """ACT-JEPA: tokens of any number and width are attended to."""
    return {}


FITTED: dict[str, Callable[[Mapping[str, Any], TokenForm], Entries]] = {
    "act_jepa": _anything,
    "act_jepa_control": _anything,
    "causal_jepa": _objects,
    "leworldmodel": _states,
    "think_jepa": _thoughts,
    "video_slots": _rebuilt,
    "vjepa2_ac": _grid,
}
"""System -> the entries that follow from an encoder's tokens."""
