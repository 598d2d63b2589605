"""Trained critics in folders: each belongs to one world model and one intrinsic cost, and is refused beside others."""

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
    """Publish a critic: weights, the configuration that builds it, and the world model that it belongs to.

    Args:
        folder: Where; replaced as a whole, never half written.
        critic: The trained critic.
        described: The configuration that `assemble` builds it from.
        model: The world model whose latents it reads.
        training: How it came to be (targets, discount, weights of the intrinsic cost), for people.

    Raises:
        ValueError: If the world model has no fingerprint, so that nothing could be checked later.
    """
    facts = {"training": dict(training or {})}
    save_companion(folder, critic, kind="critic", described=described, model=model, facts=facts)


def load_critic(folder: str | Path, model: WorldModel) -> Critic:
    """Read a published critic, onto the device of its world model, frozen.

    Raises:
        BadCheckpoint: If the folder is missing, damaged or of a newer format, does not describe a critic, or describes
            one that was trained for another world model.
    """
    return load_companion(folder, model, kind="critic", form=Critic)
