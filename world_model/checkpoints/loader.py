"""World-model checkpoints: published atomically, loaded as the parts of an agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jepa_mpc.checkpoint import load_checkpoint, open_checkpoint, save_checkpoint
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.world_model.checkpoints.restore import MISFITS, load_network, restore
from jepa_mpc.world_model.dynamics.model import Interface, WorldModel, as_ensemble
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from jepa_mpc.world_model.recipes import as_world_model

SYSTEMS = "systems"
"""Key of an ensemble's configuration: the configurations of its members."""

COMPANIONS = ("policy", "critic")
"""Kinds of checkpoints other than world models, by the entry of their configuration."""


def save_world_model(
    folder: str | Path,
    objective: nn.Module,
    *,
    system: Mapping[str, Any],
    interface: Interface,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Publish a world model: weights, its configuration, and its interface.

    Args:
        folder: Destination; replaced atomically.
        objective: The trained objective.
        system: Its configuration for `assemble`.
        interface: Its inputs and actions.
        training: Facts about its training (settings, seed, steps, scores), for people.
    """
    config = {"system": dict(system), "interface": interface.to_dict(), "training": dict(training or {})}
    save_checkpoint(folder, objective.state_dict(), config)


def load_world_model(folder: str | Path, *, context: int = 1, device: torch.device | str = "cpu") -> WorldModel:
    """Load a published world model.

    Args:
        folder: Its location.
        context: Number of context frames of its predictor.
        device: Device of its networks.

    Raises:
        BadCheckpoint: If the folder is missing, damaged, of a newer format, or does not describe a world model with
            compatible parts.
    """
    with open_checkpoint(folder) as opened:
        config, seal = opened.config, opened.fingerprint
        for kind in COMPANIONS:
            if kind in config and "system" not in config:
                raise BadCheckpoint(f"{folder} holds a {kind}, not a world model: pass it as {kind}={folder}")
        try:
            interface = interface_of(config)
            specs = _specs(config)
        except MISFITS as error:
            raise BadCheckpoint(f"{folder} does not describe a world model of this version: {error}") from error
        objectives = restore(opened, specs, str(folder), kind="world model", form=DynamicsObjective)
        for objective in objectives:
            objective.eval().requires_grad_(False)
    try:
        models = [as_world_model(objective, interface, context=context, fingerprint=seal) for objective in objectives]
        model = as_ensemble(models, fingerprint=seal) if SYSTEMS in config else models[0]
        model.try_out()
    except BadCheckpoint:
        raise
    except MISFITS as error:
        said = f"{len(interface.cameras)} x {interface.image_size} px, {len(interface.actions)} action axes"
        raise BadCheckpoint(f"the network in {folder} does not fit its own interface ({said}): {error}") from error
    for objective in objectives:
        objective.to(device)
    return model


def load_system(folder: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The objective of any trained system, frozen, and its published configuration.

    Raises:
        BadCheckpoint: If the folder is missing, damaged, of a newer format, or describes no system of this version.
    """
    objective, config = load_network(folder, kind="system", form=nn.Module)
    return objective.eval().requires_grad_(False), config


def save_ensemble(folder: str | Path, members: Sequence[str | Path]) -> None:
    """Publish several saved world models of one robot as an ensemble.

    Args:
        folder: Destination; replaced atomically.
        members: Folders of the world models, each of a single network.

    Raises:
        BadCheckpoint: If one cannot be read, is an ensemble itself, or was trained for another robot.
    """
    save_checkpoint(folder, *join_members(members))


def join_members(members: Sequence[str | Path]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and configuration of several saved world models as one ensemble.

    Raises:
        BadCheckpoint: As `save_ensemble`.
    """
    as_ensemble([load_world_model(member) for member in members])
    tensors: dict[str, Tensor] = {}
    configs = []
    for index, member in enumerate(members):
        weights, config = load_checkpoint(member)
        if SYSTEMS in config:
            raise BadCheckpoint(f"{member} is an ensemble itself: name its members")
        tensors |= {f"{index}.{name}": weight for name, weight in weights.items()}
        configs.append(config)
    together = {
        SYSTEMS: [config["system"] for config in configs],
        "interface": configs[0]["interface"],
        "training": {"members": [config["training"] for config in configs]},
    }
    return tensors, together


def interface_of(config: Mapping[str, Any]) -> Interface:
    """The interface in a checkpoint's configuration."""
    facts = config["interface"]
    return Interface(
        cameras=tuple(facts["cameras"]),
        image_size=int(facts["image_size"]),
        actions=tuple(facts["actions"]),
        dt_s=float(facts["dt_s"]),
        log=str(facts.get("log", "")),
        robot=dict(facts.get("robot") or {}),
        embodiment=str(facts.get("embodiment", "")),
    )


def _specs(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of each network by the prefix of its tensors' names."""
    if SYSTEMS not in config:
        return {"": config["system"]}
    return {f"{index}.": system for index, system in enumerate(config[SYSTEMS])}
