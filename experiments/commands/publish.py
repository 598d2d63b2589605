"""Prepare a trained world model for release: weights, and an album of logged frames that shows its rollouts.

python experiments/publish.py run=runs/reach to=runs/published/reach
python experiments/publish.py "run=[runs/reach_s0,runs/reach_s1]"    # both as an ensemble
python experiments/publish.py run=runs/reach to=hf://user/reach       # on the Hugging Face Hub
"""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from jepa_mpc.errors import BadCheckpoint, BadEpisode, MissingPackage
from jepa_mpc.face.publishing import publish
from jepa_mpc.places import CONFIGS


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="publish")
def main(cfg: DictConfig) -> None:
    """Publish, and print the path."""
    try:
        print(f"published: {publish(cfg)}")
    except (BadCheckpoint, BadEpisode, MissingPackage, ValueError, OSError) as error:
        sys.exit(f"publish: {error}")
