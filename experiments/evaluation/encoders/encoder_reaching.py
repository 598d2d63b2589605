"""Reaching with the predictors of the comparison."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import torch._dynamo  # noqa: F401  before the first OpenGL context: loading it later crashes some drivers
from omegaconf import DictConfig

from jepa_mpc.experiments.evaluation.encoders.encoder_cells import EncoderCell, Outcome
from jepa_mpc.face.training.distributed import device_of
from jepa_mpc.face.training.keeper import CHECKPOINT
from jepa_mpc.face.training.reach_evaluation import ReachEvaluation
from jepa_mpc.face.training.trainable import open_model
from jepa_mpc.reporting.intervals import wilson


def reached(cfg: DictConfig, cell: EncoderCell, predictor: Outcome) -> Outcome:
    """Plan in the predictor of the same weights: share within 5 cm with Wilson's interval, and median distance.

    Args:
        cfg: Options.
        cell: The cell.
        predictor: What came of the training.

    Raises:
        BadCheckpoint: If the log's robot is not that of the task.
    """
    model = open_model(Path(cfg.out) / str(predictor["folder"]) / CHECKPOINT)
    objective = model.objective.eval().to(device_of(str(cfg.device)))
    with closing(ReachEvaluation(cfg.reach, objective=objective, interface=model.interface)) as judge:
        numbers = judge(int(predictor["steps"]), objective)
    episodes = int(cfg.reach.labs) * int(cfg.reach.episodes)
    rate = numbers["reach/success_5cm"]
    return {
        "success_5cm": rate,
        "wilson_95": wilson(round(rate * episodes), episodes),
        "median_cm": numbers["reach/median_cm"],
        "episodes": episodes,
    }
