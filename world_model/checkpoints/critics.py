"""Critic checkpoints: each belongs to one world model and one intrinsic cost, and is refused with others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jepa_mpc.world_model.checkpoints.networks import load_companion, save_companion
from jepa_mpc.world_model.costs.critic import Critic
from jepa_mpc.world_model.dynamics.model import WorldModel


def save_critic(
    folder: str | Path,
    critic: Critic,
    *,
    described: Mapping[str, Any],
    model: WorldModel,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Publish a critic: weights, its configuration, and the fingerprint of its world model.

    Args:
        folder: Destination; replaced atomically.
        critic: The trained critic.
        described: Its configuration for `assemble`.
        model: The world model whose latents it reads.
        training: Facts about its training (targets, discount, weights of the intrinsic cost), for people.

    Raises:
        ValueError: If the world model has no fingerprint.
    """
    facts = {"training": dict(training or {})}
    save_companion(folder, critic, kind="critic", described=described, model=model, facts=facts)


def load_critic(folder: str | Path, model: WorldModel) -> Critic:
    """Load a published critic, frozen, onto the device of its world model.

    Raises:
        BadCheckpoint: If the folder is missing, damaged or of a newer format, does not describe a critic, or its critic
            was trained for another world model.
    """
    return load_companion(folder, model, kind="critic", form=Critic)
