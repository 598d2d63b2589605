"""Cells worked off: what each depends on, and what is read in place of doing it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from jepa_mpc.checkpoint import checkpoint_hash
from jepa_mpc.experiments.evaluation.encoders.encoder_cells import (
    FAILED,
    PIXELS,
    SUPERVISED,
    TWIN,
    EncoderCell,
    Outcome,
    keep,
    kept,
)
from jepa_mpc.experiments.evaluation.encoders.encoder_probing import probed, supervised
from jepa_mpc.experiments.evaluation.encoders.encoder_reaching import reached
from jepa_mpc.experiments.evaluation.encoders.encoder_trainings import predicted, weights, weights_of
from jepa_mpc.face.training.keeper import CHECKPOINT
from jepa_mpc.world_model.training.health import LatentCollapse
from jepa_mpc.world_model.training.loop import TrainingDiverged

LOG = ("data", "camera", "image_size", "validation")
ASKED = {
    "weights": (*LOG, "minutes", "steps"),
    "probe": (*LOG, "readers", "train", "held"),
    "ceiling": (*LOG, "ceiling_minutes", "ceiling_steps", "ceiling", "train", "held"),
    "predictor": (*LOG, "predictor_minutes", "predictor_steps", "predictor"),
    "reach": ("reach",),
}
"""Options that an outcome depends on, beside the weights."""

WORK: Mapping[str, Callable[[DictConfig, EncoderCell], Outcome]] = {
    "weights": weights,
    "probe": probed,
    "ceiling": supervised,
    "predictor": predicted,
}


def done(cfg: DictConfig, cell: EncoderCell, outcomes: Mapping[EncoderCell, Outcome]) -> tuple[Outcome, bool]:
    """What comes of a cell, and whether it is new: read if it is there, else made and kept.

    A training that collapses or diverges is kept as such; what builds on it fails for the same reason.

    Args:
        cfg: Options.
        cell: The cell.
        outcomes: Those of the cells that it builds on.

    Raises:
        ValueError: If a training in the folder was made with other settings.
    """
    needed = [outcomes[one] for one in needs(cell)]
    failed = next((one[FAILED] for one in needed if FAILED in one), None)
    if failed:
        return {FAILED: failed}, False
    asked = _asked(cfg, cell, needed)
    found = kept(cell, Path(cfg.out), asked)
    if found is not None:
        return found, False
    try:
        made = reached(cfg, cell, needed[-1]) if cell.kind == "reach" else WORK[cell.kind](cfg, cell)
    except (LatentCollapse, TrainingDiverged) as error:
        made = {FAILED: str(error)}
    keep(cell, Path(cfg.out), asked, made)
    return made, True


def needs(cell: EncoderCell) -> list[EncoderCell]:
    """The cells that one builds on, its weights first."""
    if cell.kind == "weights" or cell.encoder == PIXELS:
        return []
    source = TWIN if cell.encoder == SUPERVISED else cell.encoder
    kinds = ["weights", "predictor"] if cell.kind == "reach" else ["weights"]
    return [EncoderCell(kind=kind, system=cell.system, encoder=source, seed=cell.seed) for kind in kinds]


def _asked(cfg: DictConfig, cell: EncoderCell, needed: list[Outcome]) -> dict[str, Any]:
    """All that an outcome depends on."""
    options: Any = OmegaConf.to_container(cfg, resolve=True)
    asked = {name: options[name] for name in ASKED[cell.kind]}
    if cell.kind == "weights":
        asked["training"] = options["trainings"][cell.system]
    for source in needs(cell)[:1]:
        asked["checkpoint"] = checkpoint_hash(weights_of(cfg, source))
    if cell.kind == "reach":
        asked["predictor"] = checkpoint_hash(Path(cfg.out) / str(needed[-1]["folder"]) / CHECKPOINT)
    return asked
