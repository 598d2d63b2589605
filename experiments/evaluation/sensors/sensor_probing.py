"""The jobs of a sensor, done by probes on frozen tokens and by networks trained on the labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Generator, Tensor, nn

from jepa_mpc.experiments.evaluation.encoders.encoder_cells import (
    PIXELS,
    SUPERVISED,
    TRAINED,
    TWIN,
    EncoderCell,
    Outcome,
)
from jepa_mpc.experiments.evaluation.encoders.encoder_probing import CHUNK, ReadObjective
from jepa_mpc.experiments.evaluation.encoders.encoder_trainings import base_training, weights, weights_of
from jepa_mpc.experiments.evaluation.encoders.encoder_work import LOG
from jepa_mpc.experiments.evaluation.encoders.training_time import planned_steps, spending, step_seconds
from jepa_mpc.experiments.evaluation.objects.kept_training import fit_shown
from jepa_mpc.experiments.evaluation.sensors.sensor_jobs import SENSORS, Job, Labels, Score, Sensor
from jepa_mpc.face.evaluation.feature_probes import READERS, Predict, Samples
from jepa_mpc.face.evaluation.feature_sources import of_objective
from jepa_mpc.face.training.distributed import device_of
from jepa_mpc.face.training.training_run import load_data
from jepa_mpc.reporting.record import plain
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.bank import FrameBank
from jepa_mpc.world_model.checkpoints.restore import load_network
from jepa_mpc.world_model.checkpoints.token_forms import encoder_of
from jepa_mpc.world_model.training.loop import FitSettings

CONSTANT, RIDGE, NETWORK = "constant", "linear", "network"
RESAMPLES = 200
"""Draws of labs, the same for every method, from which intervals are made."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """Windows of the training labs, or of those kept out.

    Args:
        seen: What the sensor gave, `G ...`.
        labels: `G Q` by job, NaN where there is none.
        looks: Lab of each window `G`.
        step_s: Seconds of a step.
    """

    seen: Tensor
    labels: Labels
    looks: Tensor
    step_s: float

    def first(self, share: float) -> Side:
        """The first windows, a share of all; at least ten, as `Samples.first`."""
        count = max(10, round(share * len(self.seen)))
        labels = {name: known[:count] for name, known in self.labels.items()}
        return replace(self, seen=self.seen[:count], labels=labels, looks=self.looks[:count])

    def samples(self, tokens: Tensor, job: str) -> Samples:
        """The windows that have the label."""
        rows = self.labels[job].isfinite().all(1)
        return Samples(tokens=tokens[rows], places=self.labels[job][rows], looks=self.looks[rows])

    def draws(self, batch: int) -> Callable[[Generator], Mapping[str, Tensor]]:
        """Batches of labelled windows."""

        def draw(stream: Generator) -> Mapping[str, Tensor]:
            at = torch.randint(len(self.seen), (batch,), generator=stream)
            return {"seen": self.seen[at][:, None], **{name: known[at] for name, known in self.labels.items()}}

        return draw


def sensor_cells(systems: Sequence[str], seeds: Sequence[int]) -> list[EncoderCell]:
    """All cells, plain features first, every one after those that it builds on; one seed after the other."""
    cells = [EncoderCell(kind="probe", system="", encoder=PIXELS, seed=seed) for seed in seeds]
    kinds = {TWIN: ("weights", "probe"), SUPERVISED: ("tuned",), TRAINED: ("weights", "probe", "tuned")}
    return cells + [
        EncoderCell(kind=kind, system=system, encoder=encoder, seed=seed)
        for seed in seeds
        for system in systems
        for encoder in kinds
        for kind in kinds[encoder]
    ]


def probed(cfg: DictConfig, cell: EncoderCell) -> Outcome:
    """Every probe with every share of the labels on every job: a row of scores each."""
    sensor, (train, held) = SENSORS[cfg.sensor], sides(cfg, cell.seed)
    encode = _encoding(cfg, cell, sensor)
    inner, outer = encode(train), encode(held)
    rows = []
    for reader, share, name in product(inner, map(float, cfg.shares), train.labels):
        part = train.first(share)
        known = part.samples(inner[reader][: len(part.seen)], name)
        predict = _fitted(reader, known, sensor.jobs[name], generator(cell.seed, "probe", reader, name))
        rows.append(_row(sensor, name, reader, share, read=predict(outer[reader]), held=held))
    return {"rows": rows}


def tuned(cfg: DictConfig, cell: EncoderCell) -> Outcome:
    """The encoder and a reader trained end to end on every share of the labels, from the weights of the cell."""
    sensor, (train, held), device = SENSORS[cfg.sensor], sides(cfg, cell.seed), device_of(str(cfg.device))
    given = dict(cfg.tuning)
    batch = int(given.pop("batch"))
    source = replace(cell, kind="weights", encoder=TWIN if cell.encoder == SUPERVISED else cell.encoder)

    def objective(side: Side) -> ReadObjective:
        system: Any = load_network(weights_of(cfg, source), kind="system", form=nn.Module)[0]
        distances = {name: sensor.jobs[name].distance for name in side.labels}
        stream = generator(cell.seed, "reader")
        return ReadObjective(system, side.seen[:1, None], side.labels, stream=stream, distances=distances)

    def trial() -> float:
        few = FitSettings(steps=1, **given)
        return step_seconds(objective(train), train.draws(batch), few, seed=cell.seed, device=device)

    count = planned_steps(
        Path(cfg.out), f"tuned-{cell.system}", minutes=float(cfg.tune_minutes), steps=cfg.tune_steps, trial=trial
    )
    settings, rows = FitSettings(steps=count, **given), []
    with spending(Path(cfg.out) / "runs" / f"{cell.name}.time.json") as spent:
        for share in cfg.shares:
            part = train.first(float(share))
            network = objective(part)
            title = f"{cell.name}, {share:.0%} of the labels"
            fit_shown(network, part.draws(batch), settings, seed=cell.seed, title=title, device=device)
            answers = network.answers(held.seen)
            rows += [_row(sensor, name, NETWORK, share, read=read, held=held) for name, read in answers.items()]
    return {"rows": rows, "steps": count, **spent()}


WORK = {"weights": weights, "probe": probed, "tuned": tuned}
_LABELS = (*LOG, "sensor", "shares", "train", "held")
ASKED = {
    "weights": (*LOG, "minutes", "steps"),
    "probe": (*_LABELS, "readers"),
    "tuned": (*_LABELS, "tune_minutes", "tune_steps", "tuning"),
}
"""Options that an outcome depends on, beside the weights."""


def sides(cfg: DictConfig, seed: int) -> tuple[Side, Side]:
    """Labelled windows of the training labs and of those kept out; the same ones for every method.

    Raises:
        ValueError: If the log lacks the sensor or its labels.
    """
    sensor = SENSORS[cfg.sensor]
    options = {"batch": int(cfg.tuning.batch), "window": sensor.steps, "max_stride": 1}
    data = load_data(base_training(cfg, options), torch.device("cpu"))
    train, held = (
        _side(bank, sensor, int(cfg[name]), generator(seed, "labelled windows", name), str(cfg.data))
        for name, bank in (("train", data.train), ("held", data.held))
    )
    return train, held


def _side(bank: Any, sensor: Sensor, count: int, stream: Generator, log: str) -> Side:
    if not isinstance(bank, FrameBank):
        raise ValueError(f"data must name one log, got the mixture {log}: record one log with all labs")
    missing = [name for name in (sensor.field, sensor.needs) if name not in bank.extras]
    if missing:
        raise ValueError(
            f"{log} has no {' and no '.join(missing)}: record a log with collect.py task=push "
            '"clouds={points: 512, leave_out: [table]}" "sound={}"'
        )
    drawn = bank.sample(count, sensor.steps, generator=stream)
    return Side(
        seen=drawn[sensor.field].flatten(1, 2), labels=sensor.labels(drawn, bank.step_s),
        looks=bank.groups[drawn["episode"]], step_s=bank.step_s,
    )  # fmt: skip


def _encoding(cfg: DictConfig, cell: EncoderCell, sensor: Sensor) -> Callable[[Side], dict[str, Tensor]]:
    """Windows to what each probe is fitted on, by the probe's name."""
    if cell.encoder == PIXELS:
        return lambda side: dict.fromkeys(
            (CONSTANT, RIDGE), torch.cat([sensor.plain(part, side.step_s) for part in side.seen.split(CHUNK)])
        )
    objective: Any = load_network(weights_of(cfg, cell), kind="system", form=nn.Module)[0]
    encode, encoder = of_objective(objective, cell.name, device_of(str(cfg.device))), encoder_of(system=objective)

    def encoded(side: Side) -> dict[str, Tensor]:
        tokens = encode(side.seen)
        return {str(one): sensor.pooled(tokens, encoder) if one == "linear" else tokens for one in cfg.readers}

    return encoded


def _fitted(reader: str, known: Samples, job: Job, stream: Generator) -> Predict:
    if reader == CONSTANT:
        middle = known.places.mean(0)
        return lambda tokens: middle.expand(len(tokens), -1)
    own = {} if reader == RIDGE else {"distance": job.distance}
    return READERS[reader](known, generator=stream, **own)


def _row(sensor: Sensor, name: str, reader: str, share: float, *, read: Tensor, held: Side) -> dict[str, Any]:
    """The score of what was read in the labs kept out, and of the same in draws of these labs."""
    known, score = held.labels[name], sensor.jobs[name].score
    labelled = known.isfinite().all(1)
    again = _resampled(score, read, known, [(held.looks == lab) & labelled for lab in held.looks.unique()])
    row = {"job": name, "probe": reader, "share": float(share), "score": score(read[labelled], known[labelled])}
    return plain({**row, "resampled": [round(one, 5) for one in again]})  # type: ignore[no-any-return]


def _resampled(score: Score, read: Tensor, known: Tensor, labs: Sequence[Tensor]) -> list[float]:
    rows = [lab.nonzero()[:, 0] for lab in labs]
    draws = torch.randint(len(rows), (RESAMPLES, len(rows)), generator=generator(0, "labs")).tolist()
    chosen = (torch.cat([rows[lab] for lab in draw]) for draw in draws)
    return [score(read[at], known[at]) for at in chosen]
