"""Make a trained world model ready to ship: weights, and an album of logged frames that shows what it imagines.

python experiments/publish.py run=runs/reach to=experiments/checkpoints/reach
python experiments/publish.py "run=[runs/reach_s0,runs/reach_s1]"    # both as one: their measures are averaged
"""

from __future__ import annotations

import _path  # noqa: F401  isort: skip

import sys
from pathlib import Path

import hydra
import numpy as np
import torch
from omegaconf import DictConfig

from core.checkpoint import load_checkpoint, save_checkpoint
from core.errors import BadCheckpoint, BadEpisode
from core.seeding import generator
from core.types import Observation
from experiments.command_line import run as run_command
from experiments.reaching.album import Album, save_album
from trajectories.bank import FrameBank, load_bank
from world_model.pretrained import WorldModel, as_ensemble, load_world_model, save_ensemble


def make_album(model: WorldModel, bank: FrameBank, *, count: int, seed: int) -> Album:
    """Frames drawn evenly from the log, and where the model thinks each is.

    Raises:
        BadCheckpoint: If the model has no head that reads places.
    """
    if model.metres is None:
        raise BadCheckpoint("an album needs a world model with a displacement head")
    drawn = bank.sample(count, 1, generator=generator(seed, "album"))["frames"]
    with torch.no_grad():
        latents = model.perception(Observation(frames=drawn, cameras=model.interface.cameras))
    places = model.metres(latents)[:, 0].double().numpy()
    first_camera = drawn[:, 0, :3].permute(0, 2, 3, 1).numpy()
    return Album(np.ascontiguousarray(first_camera), places)


def publish(cfg: DictConfig) -> Path:
    """Copy the world model of a run, or those of several as one ensemble, and put the album beside it."""
    runs = [cfg.run] if isinstance(cfg.run, str) else list(cfg.run)
    sources, target = [Path(run) / "checkpoint" for run in runs], Path(cfg.to)
    models = [load_world_model(source) for source in sources]
    model = models[0] if len(models) == 1 else as_ensemble(models)
    bank = load_bank(Path(cfg.data), cameras=model.interface.cameras)
    album = make_album(model, bank, count=int(cfg.frames), seed=int(cfg.seed))
    if len(sources) == 1:
        save_checkpoint(target, *load_checkpoint(sources[0]))
    else:
        save_ensemble(target, sources)
    save_album(target, album)
    return target


@hydra.main(version_base=None, config_path="../configs", config_name="publish")
def main(cfg: DictConfig) -> None:
    """Publish, and say where."""
    try:
        print(f"published: {publish(cfg)}")
    except (BadCheckpoint, BadEpisode, ValueError, OSError) as error:
        sys.exit(f"publish: {error}")


if __name__ == "__main__":
    run_command(main, name="publish")
