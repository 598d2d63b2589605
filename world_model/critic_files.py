"""Trained critics in folders: each belongs to one world model and one intrinsic cost, and is refused beside others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.checkpoint import load_checkpoint, load_strict, save_checkpoint
from core.errors import BadCheckpoint
from world_model.assembly import assemble
from world_model.critic import Critic
from world_model.pretrained import MISFITS, WorldModel


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
    if not model.fingerprint:
        raise ValueError("the world model has no fingerprint: load it from its folder, then train a critic for it")
    config = {"critic": dict(described), "world_model": model.fingerprint, "training": dict(training or {})}
    save_checkpoint(folder, critic.state_dict(), config)


def load_critic(folder: str | Path, model: WorldModel) -> Critic:
    """Read a published critic, onto the device of its world model, frozen.

    Raises:
        BadCheckpoint: If the folder is missing, damaged or of a newer format, does not describe a critic, or describes
            one that was trained for another world model.
    """
    tensors, config = load_checkpoint(folder)
    try:
        critic, belongs_to = assemble(config["critic"]), str(config["world_model"])
    except MISFITS as error:
        raise BadCheckpoint(f"{folder} does not describe a critic of this version: {error}") from error
    if not isinstance(critic, Critic):
        raise BadCheckpoint(f"{folder} describes a {type(critic).__name__}, not a critic")
    if belongs_to != model.fingerprint:
        raise BadCheckpoint(
            f"the critic in {folder} belongs to the world model {belongs_to}, and this one is "
            f"{model.fingerprint or 'unnamed'}: train a critic for it with experiments/train_critic.py"
        )
    load_strict(critic, tensors, str(folder))
    critic.to(next(model.objective.parameters()).device).eval().requires_grad_(False)
    return critic
