"""Train a policy for a frozen world model: `python experiments/train_policy.py data=logs/reach out=runs/policy`.

It imitates the transitions of the log, and a planner's actions between its states. With `rounds=3` the planner also
labels the states that the policy itself visits in the world model (DAgger). The run folder holds the resolved
settings, metrics.jsonl, the latents of the log and `checkpoint/`, the policy.
"""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from jepa_mpc.errors import BadCheckpoint, BadEpisode, Busy, UnknownName
from jepa_mpc.face.training.policy_training import train_policy
from jepa_mpc.places import CONFIGS
from jepa_mpc.world_model.training.loop import TrainingDiverged

MISTAKES = (Busy, BadCheckpoint, BadEpisode, UnknownName, TrainingDiverged, ValueError, TypeError, OSError)


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="train_policy")
def main(cfg: DictConfig) -> None:
    """Read the settings, train, and print the path of the policy."""
    try:
        print(f"policy: {train_policy(cfg)}")
    except MISTAKES as mistake:
        sys.exit(f"train_policy: {mistake}")
