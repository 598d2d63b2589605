"""Policy checkpoints: each belongs to one world model, and is refused with any other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.types import ActionBox, Observation
from jepa_mpc.world_model.checkpoints.loader import interface_of
from jepa_mpc.world_model.checkpoints.networks import load_companion, save_companion
from jepa_mpc.world_model.checkpoints.restore import MISFITS, load_network
from jepa_mpc.world_model.dynamics.model import WorldModel
from jepa_mpc.world_model.parts.objectives.chunk import ChunkObjective
from jepa_mpc.world_model.perception.images import ImagePerception
from jepa_mpc.world_model.policies.chunk import ChunkPolicy
from jepa_mpc.world_model.policies.goal import GoalPolicy


def save_policy(
    folder: str | Path,
    policy: GoalPolicy,
    *,
    described: Mapping[str, Any],
    model: WorldModel,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Publish a policy: weights, its configuration, and the fingerprint of its world model.

    Args:
        folder: Destination; replaced atomically.
        policy: The trained policy.
        described: Its configuration for `assemble`.
        model: The world model whose latents it reads.
        training: Facts about its training, for people.

    Raises:
        ValueError: If the world model has no fingerprint.
    """
    facts = {"actions": list(model.interface.actions), "training": dict(training or {})}
    save_companion(folder, policy, kind="policy", described=described, model=model, facts=facts)


def load_policy(folder: str | Path, model: WorldModel) -> GoalPolicy:
    """Load a published policy, frozen, onto the device of its world model.

    Args:
        folder: Its location.
        model: The world model that it is used with.

    Raises:
        BadCheckpoint: If the folder is missing, damaged or of a newer format, does not describe a policy, or its policy
            was trained for another world model.
    """
    policy = load_companion(folder, model, kind="policy", form=GoalPolicy)
    if policy.action_dim != len(model.interface.actions):
        raise BadCheckpoint(
            f"the policy in {folder} predicts actions of width {policy.action_dim}, its world model takes "
            f"{len(model.interface.actions)} ({', '.join(model.interface.actions)})"
        )
    _try_out(policy, model, folder)
    return policy


def load_chunk_policy(folder: str | Path, *, box: ActionBox, device: torch.device | str = "cpu") -> ChunkPolicy:
    """Load a trained chunk policy from its checkpoint.

    Raises:
        BadCheckpoint: If the folder is missing, damaged or of a newer format, or describes no action-chunk system.
        ValueError: If its action width is not the robot's.
    """
    objective, config = load_network(folder, kind="system that predicts action chunks", form=ChunkObjective)
    try:
        interface = interface_of(config)
    except MISFITS as error:
        raise BadCheckpoint(f"{folder} does not describe a system of this version: {error}") from error
    objective.to(device).eval().requires_grad_(False)
    perception = ImagePerception(
        objective.encoder,
        cameras=interface.cameras,
        image_size=(interface.image_size, interface.image_size),
        prepare=objective.preprocess,
    )
    return ChunkPolicy(
        objective, perception=perception, box=ActionBox(low=box.low.to(device), high=box.high.to(device))
    )


@torch.no_grad()
def _try_out(policy: GoalPolicy, model: WorldModel, folder: str | Path) -> None:
    """Run it once on a state of the world model's size."""
    known = model.interface
    frames = torch.zeros(1, 1, 3 * len(known.cameras), known.image_size, known.image_size, dtype=torch.uint8)
    seen = Observation(frames=frames.to(policy.scale.device), cameras=known.cameras)
    state = model.perception(seen)[:, -1]
    try:
        policy(state, state, torch.ones(1, device=state.device))
    except (RuntimeError, ValueError) as error:
        raise BadCheckpoint(f"the network in {folder} does not fit the states of its world model: {error}") from error
