"""Train a world model on a log: `python experiments/train.py data=logs/reach out=runs/reach seed=0`.

The run folder holds the resolved settings, metrics.jsonl, TensorBoard files, `state/` to resume from, `checkpoint/`,
the
world model as an agent loads it, and `best/`, the best one so far. The run can be stopped at any time; the same
command resumes it with bit-identical results. On several GPUs: `torchrun --nproc_per_node=8 experiments/train.py ...`
(docs/training.md).
"""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from jepa_mpc.errors import BadCheckpoint, BadEpisode, Busy, MissingPackage, UnknownName
from jepa_mpc.face.training.training_run import run_training
from jepa_mpc.places import CONFIGS
from jepa_mpc.world_model.training.health import LatentCollapse
from jepa_mpc.world_model.training.loop import TrainingDiverged

MISTAKES = (
    *(Busy, BadCheckpoint, BadEpisode, MissingPackage, UnknownName, LatentCollapse, TrainingDiverged),
    *(ValueError, TypeError, OSError),
)


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="train")
def main(cfg: DictConfig) -> None:
    """Read the settings, train, and print the path of the world model."""
    try:
        trained = run_training(cfg)
        doubts = "".join(f"; warning: {doubt}" for doubt in trained.doubts)
        print(f"world model: {trained.folder}{doubts}")
    except MISTAKES as mistake:
        sys.exit(f"train: {mistake}")
