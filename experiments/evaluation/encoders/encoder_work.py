"""Cells worked off: what each depends on, and what is read in place of doing it again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from jepa_mpc.checkpoint import checkpoint_hash
from jepa_mpc.errors import BadCheckpoint, BadEpisode, Busy, MissingPackage, UnknownName, choose
from jepa_mpc.experiments.evaluation.encoders.encoder_cells import (
    FAILED,
    PIXELS,
    SUPERVISED,
    TRAINED,
    TWIN,
    EncoderCell,
    Outcome,
    keep,
    kept,
)
from jepa_mpc.experiments.evaluation.encoders.encoder_probing import probed, supervised
from jepa_mpc.experiments.evaluation.encoders.encoder_reaching import reached
from jepa_mpc.experiments.evaluation.encoders.encoder_trainings import predicted, weights, weights_of
from jepa_mpc.face.command_line import Stopped
from jepa_mpc.face.training.keeper import CHECKPOINT
from jepa_mpc.runs import origin
from jepa_mpc.world_model.training.health import LatentCollapse
from jepa_mpc.world_model.training.loop import TrainingDiverged

MISTAKES = (BadCheckpoint, BadEpisode, Busy, MissingPackage, UnknownName, ValueError, OSError)
"""What a command tells in one sentence."""

Work = Callable[[DictConfig, EncoderCell], Outcome]

LOG = ("data", "camera", "image_size", "validation")
ASKED = {
    "weights": (*LOG, "minutes", "steps"),
    "probe": (*LOG, "readers", "train", "held"),
    "ceiling": (*LOG, "ceiling_minutes", "ceiling_steps", "ceiling", "train", "held"),
    "predictor": (*LOG, "predictor_minutes", "predictor_steps", "predictor"),
    "reach": ("reach",),
}
"""Options that an outcome depends on, beside the weights."""

WORK: Mapping[str, Work] = {
    "weights": weights,
    "probe": probed,
    "ceiling": supervised,
    "predictor": predicted,
}


def check_options(cfg: DictConfig, *, lists: Iterable[str], known: Mapping[str, Iterable[str]]) -> None:
    """Refuse empty lists, unknown names in them, and numbers of samples or threads that are none.

    Args:
        cfg: Options.
        lists: Those that must name something.
        known: What some of them may name.

    Raises:
        UnknownName: If a name is unknown.
        ValueError: If a list is empty or a number out of range; names it.
    """
    for name in lists:
        if not len(cfg[name]):
            raise ValueError(f"{name} must name at least one")
    for name, names in known.items():
        for value in cfg[name]:
            choose(dict.fromkeys(map(str, names)), str(value), name)
    for name in ("train", "held", "threads"):
        if type(cfg[name]) is not int or cfg[name] < 1:
            raise ValueError(f"{name} must be a whole number from 1, got {cfg[name]!r}")


def worked_off(
    cfg: DictConfig,
    cells: Sequence[EncoderCell],
    report: Callable[..., str],
    *,
    title: str,
    work: Mapping[str, Work] = WORK,
    asked: Mapping[str, Sequence[str]] = ASKED,
) -> dict[EncoderCell, Outcome]:
    """Do every cell that is not done, with a report after each but the last.

    Args:
        cfg: Options.
        cells: The cells, every one after those that it builds on.
        report: Takes the outcomes so far, and by name whether the `figure` has changed.
        title: What the bar says.
        work: Kind of cell -> what is done.
        asked: Kind of cell -> options that its outcome depends on.

    Raises:
        Stopped: If it was interrupted; cells that are done are kept, and a training up to its last saved state.
    """
    outcomes: dict[EncoderCell, Outcome] = {}
    try:
        for cell in (bar := tqdm(cells, unit="cell", desc=title)):
            bar.set_postfix_str(cell.name)
            outcomes[cell], new = done(cfg, cell, outcomes, work=work, asked=asked)
            if new and cell != cells[-1]:
                report(outcomes, figure=cell.encoder == TRAINED and cell.kind != "weights")
    except KeyboardInterrupt as stop:
        where = f"after {len(outcomes)} of {len(cells)} cells: the same command with out={cfg.out} goes on from there"
        raise Stopped(where) from stop
    return outcomes


def facts(script: str) -> dict[str, Any]:
    """What a report says of itself: command, commit, machine and versions."""
    return {
        "command": shlex.join(["python", f"experiments/{script}.py", *sys.argv[1:]]),
        "commit": origin.commit(),
        "machine": origin.machine(),
        "versions": origin.versions(),
    }


def done(
    cfg: DictConfig,
    cell: EncoderCell,
    outcomes: Mapping[EncoderCell, Outcome],
    *,
    work: Mapping[str, Work] = WORK,
    asked: Mapping[str, Sequence[str]] = ASKED,
) -> tuple[Outcome, bool]:
    """What comes of a cell, and whether it is new: read if it is there, else made and kept.

    A training that collapses or diverges is kept as such; what builds on it fails for the same reason.

    Args:
        cfg: Options.
        cell: The cell.
        outcomes: Those of the cells that it builds on.
        work: Kind of cell -> what is done.
        asked: Kind of cell -> options that its outcome depends on.

    Raises:
        ValueError: If a training in the folder was made with other settings.
    """
    needed = [outcomes[one] for one in needs(cell)]
    failed = next((one[FAILED] for one in needed if FAILED in one), None)
    if failed:
        return {FAILED: failed}, False
    settings = _asked(cfg, cell, needed, asked[cell.kind])
    found = kept(cell, Path(cfg.out), settings)
    if found is not None:
        return found, False
    try:
        made = reached(cfg, cell, needed[-1]) if cell.kind == "reach" else work[cell.kind](cfg, cell)
    except (LatentCollapse, TrainingDiverged) as error:
        made = {FAILED: str(error)}
    keep(cell, Path(cfg.out), settings, made)
    return made, True


def needs(cell: EncoderCell) -> list[EncoderCell]:
    """The cells that one builds on, its weights first."""
    if cell.kind == "weights" or cell.encoder == PIXELS:
        return []
    source = TWIN if cell.encoder == SUPERVISED else cell.encoder
    kinds = ["weights", "predictor"] if cell.kind == "reach" else ["weights"]
    return [EncoderCell(kind=kind, system=cell.system, encoder=source, seed=cell.seed) for kind in kinds]


def _asked(cfg: DictConfig, cell: EncoderCell, needed: list[Outcome], names: Sequence[str]) -> dict[str, Any]:
    """All that an outcome depends on."""
    options: Any = OmegaConf.to_container(cfg, resolve=True)
    asked = {name: options[name] for name in names}
    if cell.kind == "weights":
        asked["training"] = options["trainings"][cell.system]
    for source in needs(cell)[:1]:
        asked["checkpoint"] = checkpoint_hash(weights_of(cfg, source))
    if cell.kind == "reach":
        asked["predictor"] = checkpoint_hash(Path(cfg.out) / str(needed[-1]["folder"]) / CHECKPOINT)
    return asked
