"""Train a critic for a frozen world model: `python experiments/train_critic.py data=logs/reach out=runs/critic`.

It learns from logged latents to predict the intrinsic cost to come on the way to a goal; goals are relabelled in
hindsight. The run folder holds the resolved settings, metrics.jsonl, the latents of the log and `checkpoint/`.
"""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from jepa_mpc.errors import BadCheckpoint, BadEpisode, Busy, UnknownName
from jepa_mpc.face.training.critic_training import train_critic
from jepa_mpc.places import CONFIGS
from jepa_mpc.world_model.training.loop import TrainingDiverged

MISTAKES = (Busy, BadCheckpoint, BadEpisode, UnknownName, TrainingDiverged, ValueError, TypeError, OSError)


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="train_critic")
def main(cfg: DictConfig) -> None:
    """Read the settings, train, and print the path of the critic."""
    try:
        print(f"critic: {train_critic(cfg)}")
    except MISTAKES as mistake:
        sys.exit(f"train_critic: {mistake}")
