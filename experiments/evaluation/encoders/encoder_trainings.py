"""The trainings of the comparison, by the trainer of the house: pretrainings, random twins, predictors on features."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from jepa_mpc.checkpoint import checkpoint_hash
from jepa_mpc.encoders.layers.pixels import NormalisePixels
from jepa_mpc.errors import choose
from jepa_mpc.experiments.evaluation.encoders.encoder_cells import TWIN, EncoderCell, Outcome
from jepa_mpc.experiments.evaluation.encoders.training_time import planned_steps, spending, step_seconds
from jepa_mpc.face.commands import composed
from jepa_mpc.face.training.distributed import device_of
from jepa_mpc.face.training.progress import Stop
from jepa_mpc.face.training.recorders import METRICS
from jepa_mpc.face.training.training_run import prepare, run_training
from jepa_mpc.world_model.checkpoints.assembly import TARGET
from jepa_mpc.world_model.checkpoints.restore import load_network
from jepa_mpc.world_model.training.loop import FitState

SHARED = ("data", "image_size", "validation", "device", "threads")
GROUPS = ("system", "fit", "encoder")
ONE_STEP = "held/prediction_over_standing"
SAVES = 10
"""How often a training saves its state on its way."""


def base_training(cfg: DictConfig, options: Mapping[str, Any]) -> DictConfig:
    """The configuration of a training on the log of the comparison.

    Args:
        cfg: Options of the comparison.
        options: Of the training: names of system, fit and encoder, values of others, and under `change` what is merged
            into groups.

    Raises:
        ValueError: If there is no such option.
    """
    made: DictConfig = composed("train", {name: value for name, value in options.items() if name in GROUPS})
    own = {name: value for name, value in options.items() if name not in (*GROUPS, "change")}
    unknown = sorted({*own, *options.get("change", {})} - {str(name) for name in made})
    if unknown:
        raise ValueError(f"a training has no option {', '.join(unknown)}: --help of train.py lists them")
    with open_dict(made):
        for name, value in {**{name: cfg[name] for name in SHARED}, **own}.items():
            made[name] = value
        for name, entries in options.get("change", {}).items():
            made[name] = OmegaConf.merge(made[name], entries)
        made.cameras, made.recorders = [str(cfg.camera)], ["jsonl"]
    return made


def pretraining(cfg: DictConfig, cell: EncoderCell) -> DictConfig:
    """The training of an encoder's own system.

    Raises:
        UnknownName: If `trainings` has no such encoder.
    """
    made = base_training(cfg, {**_training(cfg, cell.system), "seed": cell.seed})
    made.out = str(run_of(cfg, cell))
    return made


def weights(cfg: DictConfig, cell: EncoderCell) -> Outcome:
    """The weights that the other cells are about: trained, or fresh."""
    return _twin(cfg, cell) if cell.encoder == TWIN else _pretrained(cfg, cell)


def _twin(cfg: DictConfig, cell: EncoderCell) -> Outcome:
    """Publish a system as its pretraining finds it, with the weights of the seed."""
    made = pretraining(cfg, cell)
    shop = prepare(made, device_of(str(made.device)), stop=Stop())
    shop.keeper.publish(FitState(step=0, objective=shop.objective.state_dict(), optimiser={}))
    return {"checkpoint": checkpoint_hash(weights_of(cfg, cell))}


def _pretrained(cfg: DictConfig, cell: EncoderCell) -> Outcome:
    """Pretrain, or go on with it; how far it came, what it took, and how its latents are."""
    made = timed(cfg, pretraining(cfg, cell), f"pretraining-{cell.system}", minutes=cfg.minutes, steps=cfg.steps)
    facts = _run(made)
    health = {name: value for name, value in last_numbers(Path(made.out)).items() if name.startswith("health/")}
    return {"checkpoint": checkpoint_hash(weights_of(cfg, cell)), **facts, "health": health}


def predictor(cfg: DictConfig, cell: EncoderCell) -> DictConfig:
    """The training of a predictor on the frozen features of a cell's weights.

    Its pixels are scaled as those of the encoder's own system, or the features would be others.
    """
    source = weights_of(cfg, cell)
    given = _plain(cfg.predictor)
    made = base_training(cfg, {**given, "encoder": cell.system, "seed": cell.seed})
    own = _training(cfg, cell.system).get("change", {}).get("system", {})
    with open_dict(made):
        made.encoder.system = OmegaConf.merge(made.encoder.system, own)
        made.system.preprocess = pixels_of(source)
        made.pretrained = str(source)
        made.out = str(run_of(cfg, cell)) + f"-{checkpoint_hash(source)[:8]}"
    return made


def predicted(cfg: DictConfig, cell: EncoderCell) -> Outcome:
    """Train the predictor; its error over one step in labs kept out, as a share of that of standing still."""
    made = timed(
        cfg, predictor(cfg, cell), f"predictor-{cell.system}", minutes=cfg.predictor_minutes, steps=cfg.predictor_steps
    )
    facts = _run(made)
    folder = Path(made.out)
    return {"one_step": last_numbers(folder)[ONE_STEP], "folder": str(folder.relative_to(cfg.out)), **facts}


def timed(cfg: DictConfig, made: DictConfig, name: str, *, minutes: float, steps: int | None) -> DictConfig:
    """The configuration with as many steps as fit into the budget; saved on the way, evaluated at the end."""
    count = planned_steps(Path(cfg.out), name, minutes=float(minutes), steps=steps, trial=lambda: _trial(made))
    with open_dict(made):
        made.fit.steps, made.fit.evaluate_every, made.fit.save_every = count, count, max(1, count // SAVES)
    return made


def run_of(cfg: DictConfig, cell: EncoderCell) -> Path:
    """The folder of a cell's training."""
    return Path(cfg.out) / "runs" / cell.name


def weights_of(cfg: DictConfig, cell: EncoderCell) -> Path:
    """The checkpoint whose encoder a cell is about."""
    source = EncoderCell(kind="weights", system=cell.system, encoder=cell.encoder, seed=cell.seed)
    return run_of(cfg, source) / "checkpoint"


def pixels_of(checkpoint: Path) -> dict[str, Any]:
    """How a system scales pixels for its encoder, as a part.

    Raises:
        ValueError: If it does something else with them.
    """
    objective, _ = load_network(checkpoint, kind="system", form=nn.Module)
    prepare = getattr(objective, "still", None) or getattr(objective, "prepare", None)
    if not isinstance(prepare, NormalisePixels):
        raise ValueError(f"a {type(objective).__name__} prepares pixels in a way that no predictor here can take over")
    mean, spread = ((part.double().flatten() / 255).tolist() for part in (prepare.mean, prepare.std))
    return {TARGET: "normalise_pixels", "mean": mean, "std": spread}


def last_numbers(folder: Path) -> dict[str, float]:
    """The last value of every number that a training has logged."""
    numbers: dict[str, float] = {}
    for line in (folder / METRICS).read_text(encoding="utf-8").splitlines():
        numbers |= json.loads(line)
    return numbers


def _run(made: DictConfig) -> dict[str, Any]:
    """Train, and say what it took."""
    folder = Path(made.out)
    with spending(folder.with_name(f"{folder.name}.time.json")) as spent:
        run_training(made)
    return {"steps": int(made.fit.steps), **spent()}


def _trial(made: DictConfig) -> float:
    device = device_of(str(made.device))
    torch.set_num_threads(int(made.threads))
    shop = prepare(made, device, stop=Stop())
    return step_seconds(shop.objective, shop.data.draw, shop.settings, seed=int(made.seed), device=device)


def _training(cfg: DictConfig, system: str) -> dict[str, Any]:
    return choose(_plain(cfg.trainings), system, "encoder that `trainings` knows")


def _plain(given: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(given, resolve=True)  # type: ignore[return-value]
