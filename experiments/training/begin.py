"""Trainings that begin with weights of earlier ones: an encoder that was pretrained, say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from core.checkpoint import load_checkpoint, load_strict
from core.errors import BadCheckpoint
from world_model.assembly import assemble


def published_encoder(folder: str | Path) -> nn.Module:
    """The encoder in the checkpoint folder of a training of any system.

    Raises:
        BadCheckpoint: If there is no such checkpoint, or its system has no encoder to give.
    """
    tensors, config = load_checkpoint(folder)
    try:
        objective = assemble(config["system"])
    except (LookupError, TypeError, ValueError) as error:
        raise BadCheckpoint(f"{folder} describes no system of this version: {error}") from error
    load_strict(objective, tensors, str(folder))
    encoder = getattr(objective, "published", getattr(objective, "encoder", None))
    if not isinstance(encoder, nn.Module):
        raise BadCheckpoint(f"{folder} holds a {type(objective).__name__}, which has no encoder")
    return encoder


def begin_with(objective: nn.Module, parts: Mapping[str, str]) -> None:
    """Give parts of a fresh objective the encoder weights of earlier trainings.

    Args:
        objective: The objective, changed in place.
        parts: Name of a part, with dots for parts of parts, to the checkpoint folder that its weights come from.

    Raises:
        ValueError: If there is no such part.
        BadCheckpoint: If the weights do not fit it.
    """
    for name, folder in parts.items():
        try:
            part = objective.get_submodule(name)
        except AttributeError as error:
            known = ", ".join(name for name, _ in objective.named_children())
            raise ValueError(f"cannot begin with {name!r}: the system has {known}") from error
        load_strict(part, published_encoder(folder).state_dict(), f"{name} (weights of {folder})")
