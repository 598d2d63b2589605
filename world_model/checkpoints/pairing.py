"""Pairs any encoder with any predictor: replaces the encoder in a system's configuration and adapts the sizes."""

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
"""Encoder depths used by the stand-in for a thinker."""


def paired(system: Mapping[str, Any], encoder: Mapping[str, Any], *, picture: tuple[int, int, int]) -> Entries:
    """A system's configuration with its encoder replaced; all entries of the former encoder are dropped.

    The encoder is built once to measure its tokens; the predictor's sizes follow from them.

    Args:
        system: The configuration.
        encoder: The encoder's configuration, for `assemble`.
        picture: Channels, height and width of the log's images.

    Raises:
        UnknownName: If there is no such system or encoder.
        ValueError: If they are incompatible; says why, and what is compatible.
    """
    name, title = str(system[TARGET]), title_of(encoder)
    choose(PARTS, str(encoder.get(TARGET)), "encoder")
    if "encoder" not in signature(choose(PARTS, name, "system")).parameters and name not in FITTED:
        begin = f"; to start from released weights, choose its preset of that size and pass pretrained={title}"
        raise ValueError(f"encoder={title}: {name} builds its own encoder{begin if 'model' in encoder else ''}")
    try:
        form = measured(system, encoder, picture=picture)
        fitted = FITTED[name](system, form) if name in FITTED else {}
    except ValueError as error:
        raise ValueError(f"encoder={title} is incompatible with {name}: {error}") from error
    return {**system, **fitted, "encoder": dict(encoder)}


def measured(system: Mapping[str, Any], encoder: Mapping[str, Any], *, picture: tuple[int, int, int]) -> TokenForm:
    """The tokens of an encoder for images that are prepared as in the system.

    Raises:
        ValueError: If it does not accept such images.
    """
    prepare = assemble(system["preprocess"]) if system.get("preprocess") else NormalisePixels()
    seen = prepare(torch.zeros(1, *picture, dtype=torch.uint8))
    with torch.device("meta" if encoder[TARGET] == "released_encoder" else "cpu"):  # large ones: shapes only
        built = assemble(encoder)
    return form_of(built, seen)


def title_of(encoder: Mapping[str, Any]) -> str:
    """Name of an encoder's configuration in messages: the release, the system it belongs to, or the part."""
    inner = encoder.get("system")
    return str(encoder.get("model") or (inner[TARGET] if isinstance(inner, Mapping) else encoder.get(TARGET)))


def _states(system: Mapping[str, Any], form: TokenForm) -> Entries:
    """LeWorldModel: every token is a part of the state."""
    if form.count == 1:
        return {"num_tokens": 1}
    return {"num_tokens": form.count, "extra": [_measuring(entry, form) for entry in system.get("extra") or ()]}


def _measuring(entry: Any, form: TokenForm) -> Any:
    """A displacement head for states of several tokens; other extra terms are unchanged."""
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
    """V-JEPA 2-AC: tokens need rows and columns."""
    if form.grid is None:
        raise ValueError(
            "its predictor needs tokens with rows and columns, which object slots lack: use leworldmodel, act_jepa "
            f"or causal_jepa, or a grid encoder ({OF_PICTURES})"
        )
    return {"state_dim": form.width, "grid": list(form.grid)}


def _thoughts(system: Mapping[str, Any], form: TokenForm) -> Entries:
    """ThinkJEPA: a grid, and a stand-in for a thinker that uses the encoder's own depths."""
    step = max(1, len(form.depths) // THOUGHTS)
    at = list(form.depths[step - 1 :: step][:THOUGHTS]) or None
    return {**_grid(system, form), "thinker": {TARGET: "depth_tokens", "at": at}}


def _objects(system: Mapping[str, Any], form: TokenForm) -> Entries:
    """Causal-JEPA: slots, or slots over the tokens of a grid."""
    if form.grid is not None and form.count < 2:
        raise ValueError(
            "its slots bind to the tokens of an image, but this encoder has only one token: use leworldmodel, "
            "vjepa2_ac or act_jepa, or an encoder with many tokens (resnet_grid, ijepa_small, vjepa2_small, ...)"
        )
    return {}


def _rebuilt(system: Mapping[str, Any], form: TokenForm) -> Entries:
    """Slots from video: the decoder reconstructs as many tokens as the encoder has."""
    return _objects(system, form) | ({} if form.grid is None else {"places": form.count})


def _anything(system: Mapping[str, Any], form: TokenForm) -> Entries:
    """ACT-JEPA: attends to tokens of any number and width."""
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
