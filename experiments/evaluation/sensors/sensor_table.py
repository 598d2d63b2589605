"""The tables of the sensors: scores over the seeds, and by how much one method is ahead of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.experiments.evaluation.encoders.encoder_cells import FAILED, PIXELS, SUPERVISED, TRAINED, TWIN
from jepa_mpc.experiments.evaluation.encoders.encoder_table import MISSING, Outcomes, Row, over_seeds, shown, spread_of
from jepa_mpc.experiments.evaluation.sensors.sensor_jobs import SENSORS
from jepa_mpc.reporting.saving import markdown_table

Method = tuple[str, str]

FINE, SCRATCH, PLAIN = (TRAINED, "network"), (SUPERVISED, "network"), (PIXELS, "linear")
TITLES: dict[Method, str] = {
    FINE: "fine-tuned",
    SCRATCH: "from scratch",
    (TRAINED, "attentive"): "frozen, attentive probe",
    (TWIN, "attentive"): "random twin, attentive probe",
    (TRAINED, "linear"): "frozen, linear probe",
    (TWIN, "linear"): "random twin, linear probe",
    PLAIN: "plain features, ridge",
    (PIXELS, "constant"): "mean of the labels",
}
"""Encoder and probe -> what the method is called."""

COMPARED: tuple[tuple[Method, Method], ...] = (
    (FINE, SCRATCH),
    (FINE, PLAIN),
    ((TRAINED, "attentive"), (TWIN, "attentive")),
    ((TRAINED, "linear"), (TWIN, "linear")),
    ((TRAINED, "attentive"), PLAIN),
)


def scores(rows: Sequence[Row]) -> list[Row]:
    """Mean and spread over the seeds, a line for each system, job, method and share of the labels."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        kind = (row["system"], row["job"], row["encoder"], row["probe"], row["share"])
        found.setdefault(kind, []).append(row["score"])
    names = ("system", "job", "encoder", "probe", "share")
    return [{**dict(zip(names, kind, strict=True)), "score": spread_of(own)} for kind, own in found.items()]


def leads(rows: Sequence[Row], systems: Sequence[str], sensor: str) -> list[Row]:
    """By which share of its error a method is ahead of another: mean over the seeds, 95 % interval over labs, by seed.

        1 - (best - own) / (best - other)

    Both are judged on the same draws of labs.
    """
    jobs, known = SENSORS[sensor].jobs, {_key(row): row for row in rows}
    kinds = dict.fromkeys((row["job"], row["share"]) for row in rows)
    seeds = dict.fromkeys(row["seed"] for row in rows)
    found = []
    for system in systems:
        for job, share in kinds:
            for own, other in COMPARED:
                pairs = [
                    (known.get((system, job, share, seed, *own)), _of(known, system, job, share, seed, other))
                    for seed in seeds
                ]
                both = [(_errors(a, jobs[job].best), _errors(b, jobs[job].best)) for a, b in pairs if a and b]
                if both:
                    means, others = (np.array(one) for one in zip(*both, strict=True))
                    again = _lead(means.mean(0), others.mean(0))
                    found.append({
                        "system": system, "job": job, "share": share, "own": TITLES[own], "other": TITLES[other],
                        "lead": again[0], "interval": list(np.nanquantile(again[1:], [0.025, 0.975])),
                        "by_seed": list(_lead(means[:, 0], others[:, 0])),
                    })  # fmt: skip
    return found


def markdown(report: Mapping[str, Any], outcomes: Outcomes) -> str:
    """The page: scores by job, leads, what was trained, and what failed."""
    facts, settings = report["facts"], report["settings"]
    parts = [f"# Sensor: {settings['sensor']}\n\n`{facts['command']}`, commit {facts['commit']}, {facts['machine']}\n"]
    for system in settings["systems"]:
        for job, told in SENSORS[settings["sensor"]].jobs.items():
            better = "higher" if told.best else "lower"
            head = f"## {system}: {job}, {told.unit} in labs kept out ({better} is better)"
            parts.append(f"{head}\n\n{_scores(report, system, job)}")
    parts.append(f"## Ahead by this share of the error (95 % over labs)\n\n{_leads(report['leads'])}")
    parts.append(f"## Trainings\n\n{_trainings(outcomes, settings['systems'])}")
    failed = [f"- {cell.name}: {outcome[FAILED]}\n" for cell, outcome in outcomes.items() if FAILED in outcome]
    return "\n".join([*parts, *(["## What failed\n\n" + "".join(failed)] if failed else [])])


def _scores(report: Mapping[str, Any], system: str, job: str) -> str:
    shares = [float(share) for share in report["settings"]["shares"]]
    lines = [line for line in report["summary"] if line["job"] == job and line["system"] in (system, "")]
    known = {(line["encoder"], line["probe"], line["share"]): line["score"] for line in lines}
    table = [[title, *(shown(known.get((*method, share))) for share in shares)] for method, title in TITLES.items()]
    return markdown_table(["labels", *(f"{share:.0%}" for share in shares)], table)


def _leads(found: Sequence[Row]) -> str:
    table = []
    for one in found:
        low, high = one["interval"]
        ahead = sum(lead > 0 for lead in one["by_seed"])
        table.append([
            one["system"], one["job"], f"{one['share']:.0%}", one["own"], one["other"],
            f"{one['lead']:+.0%} ({low:+.0%} to {high:+.0%})", f"{ahead} of {len(one['by_seed'])}",
        ])  # fmt: skip
    return markdown_table(["system", "job", "labels", "method", "beside", "ahead by", "seeds ahead"], table)


def _trainings(outcomes: Outcomes, systems: Sequence[str]) -> str:
    table = []
    for system in systems:
        line = [system]
        for kind in ("weights", "tuned"):
            steps, seconds = (over_seeds(outcomes, kind, system, TRAINED, name) for name in ("steps", "cpu_s"))
            line += [f"{steps[0]:.0f}" if steps else MISSING, f"{seconds[0] / 60:.1f}" if seconds else MISSING]
        table.append(line)
    head = ("system", "pretraining: steps", "CPU min", "steps on labels", "CPU min for all shares")
    return markdown_table(head, table)


def _key(row: Row) -> tuple[Any, ...]:
    return (row["system"], row["job"], row["share"], row["seed"], row["encoder"], row["probe"])


def _of(known: Mapping[tuple[Any, ...], Row], system: str, job: str, share: float, seed: int, method: Method) -> Any:
    return known.get(("" if method[0] == PIXELS else system, job, share, seed, *method))


def _lead(own: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of the other's error that is gone; NaN where it has none."""
    return 1 - np.divide(own, other, out=np.full_like(other, np.nan), where=other > 0)


def _errors(row: Row, best: float) -> NDArray[np.float64]:
    """How far from the best, first in all labs, then in each draw of them."""
    return np.abs(best - np.array([row["score"], *row["resampled"]], dtype=float))
