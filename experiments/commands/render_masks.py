"""The masks of a masked system: `python experiments/render_masks.py system=ijepa_small data=LOG "cameras=[left]"`.

Draws one sample of the log as in training, a row for each mask: visible tokens stay clear, each target block has a
colour, and all other tokens are dark. Clips show some of their frames; sounds are drawn as spectrograms, with time to
the right; clouds as their points, each with the colour of its nearest group.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from jepa_mpc.errors import BadEpisode, MissingPackage, UnknownName
from jepa_mpc.face.evaluation.mask_panels import panels
from jepa_mpc.files import atomic_file
from jepa_mpc.places import CONFIGS
from jepa_mpc.reporting.mask_pictures import draw, is_drawn
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.bank import load_bank
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.parts.objectives.masked import MaskedObjective

MISTAKES = (BadEpisode, MissingPackage, UnknownName, ValueError, OSError)


def render(cfg: DictConfig) -> Path:
    """Draw a sample and return the path of the image.

    Raises:
        ValueError: If the system has no mask, the log has no input for it, or `out` is not a PNG file of this command.
    """
    path = Path(str(cfg.out))
    if path.suffix != ".png":
        raise ValueError(f"out must be a .png file, got {path}")
    if path.exists() and not is_drawn(path):
        raise ValueError(f"out={path} is there and was not drawn by this command: choose another name")
    objective = assemble(
        OmegaConf.to_container(cfg.system, resolve=True), generator=generator(int(cfg.seed), "weights")
    )
    if not isinstance(objective, MaskedObjective):
        raise ValueError(f"a {type(objective).__name__} hides no tokens: take a masked system (ijepa_small, ...)")
    bank = replace(load_bank(Path(cfg.data), cameras=cfg.cameras), skip=int(cfg.skip))
    batch = bank.sample(2, int(cfg.window), generator=generator(int(cfg.seed), "sample"))
    rows = panels(objective.eval(), batch, generator(int(cfg.seed), "masks"))
    with atomic_file(path) as draft:
        draw(rows, draft)
    return path


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="render_masks")
def main(cfg: DictConfig) -> None:
    """Draw, and print the path of the image."""
    try:
        print(f"masks: {render(cfg)}")
    except MISTAKES as mistake:
        sys.exit(f"render_masks: {mistake}")
