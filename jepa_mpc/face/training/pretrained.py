"""Initialises trainings with the encoder of an earlier one, or with a released encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from jepa_mpc.checkpoint import MANIFEST, load_strict
from jepa_mpc.encoders.adapters.vjepa2 import load
from jepa_mpc.encoders.frozen import FrozenFrames
from jepa_mpc.encoders.hand_eye import HandEyeEncoder
from jepa_mpc.encoders.projected import Projected
from jepa_mpc.encoders.released import RELEASES
from jepa_mpc.encoders.remembered import Remembered
from jepa_mpc.encoders.slots import SlotEncoder
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.places import folder_of
from jepa_mpc.world_model.checkpoints.assembly import TARGET
from jepa_mpc.world_model.checkpoints.pairing import paired
from jepa_mpc.world_model.checkpoints.restore import load_network
from jepa_mpc.world_model.dynamics.model import POSITION_HEAD

RELEASED = "vjepa2_encoder"
"""Target of released weights in configs/encoder."""


WRAPPERS: dict[type[nn.Module], str] = {
    FrozenFrames: "encoder",
    Projected: "encoder",
    SlotEncoder: "features",
    HandEyeEncoder: "scene",
    Remembered: "encoder",
}
"""Wrapper class of an encoder -> attribute that holds the encoder."""


def published_encoder(source: str) -> nn.Module:
    """The encoder of a checkpoint of ours, or of a released file.

    Args:
        source: A checkpoint folder; a released file, folder or Hugging Face name; or a name of `RELEASES`.

    Raises:
        BadCheckpoint: If there is no such checkpoint, or its system has no encoder.
    """
    if source in RELEASES:
        return load(source)
    if not (folder_of(source) / MANIFEST).exists():
        return load(hub=source)
    objective, _ = load_network(source, kind="system", form=nn.Module)
    encoder = getattr(objective, "published", getattr(objective, "encoder", None))
    if not isinstance(encoder, nn.Module):
        raise BadCheckpoint(f"{source} holds a {type(objective).__name__}, which has no encoder")
    return encoder.encoder if isinstance(encoder, FrozenFrames) else encoder


def with_encoder(
    system: Mapping[str, Any], encoder: Mapping[str, Any], *, picture: tuple[int, int, int]
) -> dict[str, Any]:
    """A system's configuration with its encoder replaced; see `pairing.paired`.

    Args:
        system: The configuration.
        encoder: The encoder's configuration: a released one (`RELEASED`), or any that `assemble` accepts.
        picture: Channels, height and width of the log's images.

    Raises:
        UnknownName: If there is no such encoder.
        ValueError: If the two are incompatible; says why, and what is compatible.
    """
    if is_released(encoder):
        encoder = {TARGET: "released_encoder", "model": str(encoder["model"])}
    return paired(system, encoder, picture=picture)


def is_released(encoder: Mapping[Any, Any]) -> bool:
    """Whether an encoder configuration names released weights."""
    return encoder.get(TARGET) == RELEASED


def begin_with_encoder(objective: nn.Module, source: str) -> None:
    """Load an earlier encoder's weights into a fresh objective.

    For an encoder with an extra hand-camera branch, the scene branch and its displacement head are loaded.

    Args:
        objective: The objective, changed in place.
        source: See `published_encoder`.

    Raises:
        BadCheckpoint: If the weights do not fit it.
    """
    fill_encoder(objective, published_encoder(source), source)
    if isinstance(getattr(objective, "encoder", None), HandEyeEncoder) and source not in RELEASES:
        earlier, _ = load_network(source, kind="system", form=nn.Module)
        head = f"parts.{POSITION_HEAD}"
        weights = earlier.get_submodule(head).state_dict()
        load_strict(objective.get_submodule(head), weights, f"the displacement head (weights of {source})")


def fill_encoder(objective: nn.Module, encoder: nn.Module, source: str) -> None:
    """Load the weights of an encoder into the encoder of an objective.

    Args:
        objective: The objective, changed in place.
        encoder: Holds the weights; must have the same structure.
        source: Origin of the weights, for the error message.

    Raises:
        BadCheckpoint: If the weights do not fit it.
    """
    part = objective.get_submodule("encoder")
    for wrapper, inner in WRAPPERS.items():
        if isinstance(part, wrapper) and not isinstance(encoder, wrapper):
            part = part.get_submodule(inner)
    load_strict(part, encoder.state_dict(), f"the encoder of this system (weights of {source})")
