"""Checkpoints of small networks that belong to one world model (a policy, a critic), refused with any other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from jepa_mpc.checkpoint import open_checkpoint, save_checkpoint
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.world_model.checkpoints.restore import restore
from jepa_mpc.world_model.dynamics.model import WorldModel

Part = TypeVar("Part", bound=nn.Module)


def save_companion(
    folder: str | Path,
    part: nn.Module,
    *,
    kind: str,
    described: Mapping[str, Any],
    model: WorldModel,
    facts: Mapping[str, Any],
) -> None:
    """Publish a network with the fingerprint of its world model.

    Args:
        folder: Destination; replaced atomically.
        part: The trained network.
        kind: "policy" or "critic", as in its trainer `experiments/train_<kind>.py`.
        described: Its configuration for `assemble`.
        model: The world model.
        facts: Further entries of the configuration.

    Raises:
        ValueError: If the world model has no fingerprint.
    """
    if not model.fingerprint:
        raise ValueError(f"the world model has no fingerprint: load it from its folder, then train a {kind} for it")
    config = {kind: dict(described), "world_model": model.fingerprint, **facts}
    save_checkpoint(folder, part.state_dict(), config)


def load_companion(folder: str | Path, model: WorldModel, *, kind: str, form: type[Part]) -> Part:
    """Load a published network, frozen, onto the device of its world model.

    Args:
        folder: Its location.
        model: The world model that it is used with.
        kind: The expected kind.
        form: The expected class.

    Raises:
        BadCheckpoint: If the folder is missing, damaged or of a newer format, does not describe such a network, or its
            network was trained for another world model.
    """
    with open_checkpoint(folder) as opened:
        try:
            described, belongs_to = opened.config[kind], str(opened.config["world_model"])
        except LookupError as error:
            raise BadCheckpoint(f"{folder} does not describe a {kind} of this version: {error}") from error
        if belongs_to != model.fingerprint:
            raise BadCheckpoint(
                f"the {kind} in {folder} belongs to the world model {belongs_to}, and this one is "
                f"{model.fingerprint or 'unnamed'}: train a {kind} for it with experiments/train_{kind}.py"
            )
        (part,) = restore(opened, {"": described}, str(folder), kind=kind, form=form)
    part.to(next(model.objective.parameters()).device).eval().requires_grad_(False)
    return part
