"""Publishes trained world models: weights of one or several runs, an album of logged frames, a model card."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from jepa_mpc.checkpoint import load_checkpoint, save_checkpoint
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.hub import hub_name, push
from jepa_mpc.reporting.album import Album, album_files
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.bank import FrameBank, load_bank
from jepa_mpc.types import Observation
from jepa_mpc.world_model.checkpoints.loader import join_members, load_world_model
from jepa_mpc.world_model.dynamics.model import Interface, WorldModel, as_ensemble


def make_album(model: WorldModel, bank: FrameBank, *, count: int, seed: int) -> Album:
    """Frames drawn evenly from the log, with the positions that the model estimates for them.

    Raises:
        BadCheckpoint: If the model has no position head.
    """
    if model.position_head is None:
        raise BadCheckpoint("an album needs a world model with a displacement head")
    drawn = bank.sample(count, 1, generator=generator(seed, "album"))["frames"]
    with torch.no_grad():
        latents = model.perception(Observation(frames=drawn, cameras=model.interface.cameras))
    places = model.position_head(latents)[:, 0].double().numpy()
    first_camera = drawn[:, 0, :3].permute(0, 2, 3, 1).numpy()
    return Album(np.ascontiguousarray(first_camera), places)


def publish(cfg: DictConfig) -> str:
    """Publish the world model of a run, or an ensemble of several, with album and card, to a folder or the Hub.

    Returns:
        Its location.
    """
    name = hub_name(str(cfg.to))
    if name is None:
        return str(_publish(cfg, Path(str(cfg.to))))
    with tempfile.TemporaryDirectory() as place:
        return push(_publish(cfg, Path(place) / "checkpoint"), name, message="World model")


def _publish(cfg: DictConfig, target: Path) -> Path:
    runs = [cfg.run] if isinstance(cfg.run, str) else list(cfg.run)
    sources = [Path(run) / str(cfg.which) for run in runs]
    models = [load_world_model(source) for source in sources]
    model = models[0] if len(models) == 1 else as_ensemble(models)
    files = {}
    if cfg.frames:
        bank = load_bank(Path(cfg.data), cameras=model.interface.cameras)
        files = album_files(make_album(model, bank, count=int(cfg.frames), seed=int(cfg.seed)))
    weights, config = load_checkpoint(sources[0]) if len(sources) == 1 else join_members(sources)
    files["README.md"] = card(model.interface, config).encode()
    save_checkpoint(target, weights, config, files=files)
    load_world_model(target)
    return target


def card(interface: Interface, config: Mapping[str, Any]) -> str:
    """The model card of a checkpoint, as Markdown with the Hub's metadata block."""
    training = config.get("training", {})
    scores = training.get("evaluation", {}).get("scores", {})
    lines = [
        *("---", "library_name: jepa-mpc", "pipeline_tag: robotics", "tags: [jepa, world-model, mpc]", "---", ""),
        *("# A world model for planning", ""),
        f"- sees: cameras {', '.join(interface.cameras)} at {interface.image_size} px, every {interface.dt_s:g} s",
        f"- commands: {', '.join(interface.actions)}",
        f"- trained on: {interface.log or 'not told'}",
        f"- steps: {training.get('steps', 'see config.json')}",
        *(f"- {name}: {value:.4g}" for name, value in sorted(scores.items())),
        *("", "`python experiments/zero_shot_reach.py checkpoint=hf://OWNER/NAME` plays with it.", ""),
    ]
    return "\n".join(lines)
