"""Calibration of an ensemble: its disagreement inside and outside of the training distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
import torch
from numpy.typing import NDArray

from jepa_mpc.envs.labs import sample_lab
from jepa_mpc.face.evaluation.reach_task import reach_env
from jepa_mpc.face.two_modes import doubt_of
from jepa_mpc.seeding import seed_of
from jepa_mpc.world_model.dynamics.model import WorldModel

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Doubts:
    """Frames of one split: disagreement on the displacement to the goal (m^2), and its true error (m)."""

    disagreement: Floats
    error_m: Floats


def auroc(inside: Floats, outside: Floats) -> float:
    """Share of pairs in which the outside frame has the greater disagreement; ties count half (Mann and Whitney)."""
    return float(scipy.stats.mannwhitneyu(outside, inside).statistic / (len(inside) * len(outside)))


def doubts(model: WorldModel, *, split: str, labs: int, frames: int, seed: int, level: str = "held") -> Doubts:
    """Disagreement and error on starts and goals of a number of labs of a split."""
    doubt, env = doubt_of(model), reach_env(model.interface, budget=1)
    apart: list[float] = []
    off: list[float] = []
    for index in range(labs):
        lab = sample_lab(index, split=split, seed=seed, level=level)  # type: ignore[arg-type]
        for frame in range(frames):
            env.reset(seed=seed_of(seed, lab.seed, index, frame), options={"lab": lab})
            with torch.no_grad():
                here, there = (model.perception(seen)[:, -1] for seen in (env.observation(), env.goal()))
                apart.append(float(doubt.of(here, there)))
                assert model.position_head is not None
                way = (model.position_head(there) - model.position_head(here))[0].double().numpy()
            off.append(float(np.linalg.norm(way - (env.goal_m - env.start_m))))
    env.close()
    return Doubts(disagreement=np.array(apart), error_m=np.array(off))


def calibration(disagreement: Floats, error_m: Floats) -> float:
    """Spearman correlation of disagreement and error."""
    return float(scipy.stats.spearmanr(disagreement, error_m).statistic)
