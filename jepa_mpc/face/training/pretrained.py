"""Trainings that begin with an encoder of an earlier one, or with a released one."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from torch import nn

from jepa_mpc.checkpoint import MANIFEST, load_strict
from jepa_mpc.encoders.adapters.vjepa2 import load
from jepa_mpc.encoders.frozen import FrozenFrames
from jepa_mpc.encoders.released import RELEASES
from jepa_mpc.errors import BadCheckpoint, choose
from jepa_mpc.places import folder_of
from jepa_mpc.world_model.checkpoints.assembly import PARTS, TARGET
from jepa_mpc.world_model.checkpoints.restore import load_network

RELEASED = "vjepa2_encoder"
"""What the files in configs/encoder call a network with released weights."""


def published_encoder(source: str) -> nn.Module:
    """The encoder of a checkpoint folder of any system of ours, or of a released file.

    Args:
        source: A checkpoint folder; a released file, folder or Hugging Face name; or a name of `RELEASES`.

    Raises:
        BadCheckpoint: If there is no such checkpoint, or its system has no encoder to give.
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


def with_released(system: Mapping[str, Any], model: str) -> dict[str, Any]:
    """A system's configuration with a released encoder's network in place of its own.

    Args:
        system: The configuration.
        model: A name of `RELEASES`.

    Raises:
        UnknownName: If there is no such release.
        ValueError: If the system builds its encoder itself.
    """
    release = choose(RELEASES, model, "encoder")
    takes = signature(choose(PARTS, str(system[TARGET]), "system")).parameters
    if "encoder" not in takes:
        raise ValueError(
            f"encoder={model}: {system[TARGET]} builds its own encoder; to begin with released weights, choose its "
            f"preset of that size and give pretrained={model}"
        )
    width = {"state_dim": release.sizes.width} if "state_dim" in takes else {}
    return {**system, **width, "encoder": {TARGET: "released_encoder", "model": model}}


def with_encoder(system: Mapping[str, Any], encoder: Mapping[str, Any]) -> dict[str, Any]:
    """A system's configuration with another encoder in place of its own: all entries of the former one go.

    Args:
        system: The configuration.
        encoder: That of the encoder: a released one (`RELEASED`), or any that `assemble` knows.

    Raises:
        UnknownName: If there is no such encoder.
        ValueError: If the system builds its encoder itself.
    """
    if is_released(encoder):
        return with_released(system, str(encoder["model"]))
    name = str(encoder.get(TARGET))
    choose(PARTS, name, "encoder")
    if "encoder" not in signature(choose(PARTS, str(system[TARGET]), "system")).parameters:
        raise ValueError(f"encoder={name}: {system[TARGET]} builds its own encoder")
    return {**system, "encoder": dict(encoder)}


def is_released(encoder: Mapping[Any, Any]) -> bool:
    """Whether the configuration of an encoder names released weights."""
    return encoder.get(TARGET) == RELEASED


def begin_with_encoder(objective: nn.Module, source: str) -> None:
    """Give the encoder of a fresh objective the weights of an earlier one.

    Args:
        objective: The objective, changed in place.
        source: See `published_encoder`.

    Raises:
        BadCheckpoint: If the weights do not fit it.
    """
    fill_encoder(objective, published_encoder(source), source)


def fill_encoder(objective: nn.Module, encoder: nn.Module, source: str) -> None:
    """Give the encoder of an objective the weights of another of the same form.

    Args:
        objective: The objective, changed in place.
        encoder: Has the weights.
        source: Where they came from, for the error message.

    Raises:
        BadCheckpoint: If the weights do not fit it.
    """
    part = objective.get_submodule("encoder")
    if isinstance(part, FrozenFrames):
        part = part.encoder
    load_strict(part, encoder.state_dict(), f"the encoder of this system (weights of {source})")
