"""The table of encoders: means and spreads over the seeds, and whether each beats its controls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from jepa_mpc.experiments.evaluation.encoders.encoder_cells import (
    FAILED,
    PIXELS,
    SUPERVISED,
    TRAINED,
    TWIN,
    EncoderCell,
    Outcome,
)
from jepa_mpc.reporting.saving import markdown_table

SCORES = ("mean_cm", "median_cm", "r2", "r2_alike")
CONTROLS = (TWIN, PIXELS)
TITLES = {TRAINED: "pretrained", TWIN: "random twin", PIXELS: "raw pixels", SUPERVISED: "supervised"}
PREDICTED = (
    *("system", "pretraining: steps", "CPU min", "one step / standing still", "random twin", "CPU min of a predictor"),
    *("within 5 cm (95 %)", "random twin", "median end", "random twin"),
)
MISSING = "–"
Outcomes = Mapping[EncoderCell, Outcome]
Row = dict[str, Any]


def rows_of(outcomes: Outcomes) -> list[Row]:
    """Every score of every probe, and of the networks trained on the labels."""
    return [
        {"system": cell.system, "encoder": cell.encoder, "seed": cell.seed, **row}
        for cell, outcome in outcomes.items()
        for row in outcome.get("rows", ())
    ]


def leads(rows: Sequence[Row], system: str, place: str, seed: int) -> dict[str, dict[str, float]]:
    """By how much of their mean error a pretrained encoder is ahead of its controls: probe -> control -> share."""
    found: dict[str, dict[str, float]] = {}
    here = [row for row in rows if row["place"] == place and row["seed"] == seed]
    errors = {(row["probe"], row["encoder"]): row["mean_cm"] for row in here if row["system"] in (system, "")}
    for (probe, encoder), own in errors.items():
        if encoder == TRAINED:
            known = {control: errors.get((probe, control)) for control in CONTROLS}
            found[probe] = {control: 1 - own / error for control, error in known.items() if error}
    return found


def beats(lead: Mapping[str, Mapping[str, float]], *, least: float, probes: int) -> bool | None:
    """Whether it is ahead with all probes and of both controls; None while some are missing."""
    if len(lead) < probes or any(len(controls) < len(CONTROLS) for controls in lead.values()):
        return None
    return all(share >= least for controls in lead.values() for share in controls.values())


def verdicts(rows: Sequence[Row], systems: Iterable[str], seeds: Sequence[int], *, least: float, probes: int) -> Row:
    """System -> place -> seed -> leads and verdict."""
    places = dict.fromkeys(row["place"] for row in rows)
    table: Row = {}
    for system in systems:
        for place in places:
            for seed in seeds:
                lead = leads(rows, system, place, seed)
                verdict = {"leads": lead, "beats": beats(lead, least=least, probes=probes)}
                table.setdefault(system, {}).setdefault(place, {})[str(seed)] = verdict
    return table


def summary(rows: Sequence[Row]) -> list[Row]:
    """Mean and spread over the seeds, a line for each place, system, probe and encoder."""
    kinds: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        kinds.setdefault((row["place"], row["system"], row["probe"], row["encoder"]), []).append(row)
    return [
        {
            **dict(zip(("place", "system", "probe", "encoder"), kind, strict=True)),
            "seeds": len(own),
            **{name: spread_of([row[name] for row in own]) for name in SCORES},
        }
        for kind, own in kinds.items()
    ]


def spread_of(values: Iterable[float | None]) -> list[float] | None:
    """Mean, standard deviation (0 for a single one) and number of the seeds that are known; None for none."""
    known = [float(value) for value in values if value is not None]
    return [mean(known), stdev(known) if len(known) > 1 else 0.0, len(known)] if known else None


def over_seeds(outcomes: Outcomes, kind: str, system: str, encoder: str, name: str) -> list[float] | None:
    """Mean and spread of a number over the seeds."""
    own = [
        outcome
        for cell, outcome in outcomes.items()
        if (cell.kind, cell.system, cell.encoder) == (kind, system, encoder)
    ]
    return spread_of(outcome.get(name) for outcome in own)


def markdown(report: Mapping[str, Any], outcomes: Outcomes) -> str:
    """The page: a table of errors for each place, one of verdicts, one of predictors, and what failed."""
    systems, seeds = report["settings"]["systems"], report["settings"]["seeds"]
    facts = report["facts"]
    parts = [f"# Camera encoders\n\n`{facts['command']}`, commit {facts['commit']}, {facts['machine']}\n"]
    lines = report["summary"]
    for place in dict.fromkeys(line["place"] for line in lines):
        parts.append(f"## Where the {place} is: mean error in labs kept out, cm\n\n{_errors(lines, place, systems)}")
    least = report["settings"]["least_lead"]
    parts.append(f"## Ahead of random twin and raw pixels by {least:.0%} with every probe\n\n{_ahead(report, seeds)}")
    parts.append(f"## Predictors on the frozen features\n\n{_predictors(outcomes, systems)}")
    failed = [f"- {cell.name}: {outcome[FAILED]}\n" for cell, outcome in outcomes.items() if FAILED in outcome]
    return "\n".join([*parts, *(["## What failed\n\n" + "".join(failed)] if failed else [])])


def _errors(lines: Sequence[Row], place: str, systems: Sequence[str]) -> str:
    known = {(line["system"], line["probe"], line["encoder"]): line for line in lines if line["place"] == place}
    probes = [probe for probe in dict.fromkeys(probe for _, probe, _ in known) if probe != SUPERVISED]
    head = ["system", "probe", *TITLES.values(), *(f"R² alike, {TITLES[name]}" for name in (TRAINED, TWIN, PIXELS))]
    table = []
    for system in systems:
        for probe in probes:
            of = {name: known.get((system, probe, name)) for name in (TRAINED, TWIN)}
            of |= {PIXELS: known.get(("", probe, PIXELS)), SUPERVISED: known.get((system, SUPERVISED, SUPERVISED))}
            errors = [shown(of[name] and of[name]["mean_cm"]) for name in TITLES]
            alike = [shown(of[name] and of[name]["r2_alike"], digits=3) for name in (TRAINED, TWIN, PIXELS)]
            table.append([system, probe, *errors, *alike])
    return markdown_table(head, table)


def _ahead(report: Mapping[str, Any], seeds: Sequence[int]) -> str:
    words = {True: "yes", False: "no", None: MISSING}
    table = []
    for system, places in report["verdicts"].items():
        for place, each in places.items():
            told = []
            for seed in seeds:
                smallest = min((x for lead in each[str(seed)]["leads"].values() for x in lead.values()), default=None)
                margin = "" if smallest is None else f" ({smallest:+.0%})"
                told.append(words[each[str(seed)]["beats"]] + margin)
            whole = [each[str(seed)]["beats"] for seed in seeds]
            table.append([system, place, *told, words[None if None in whole else all(whole)]])
    head = ["system", "place", *(f"seed {seed} (smallest lead)" for seed in seeds), "every seed"]
    return markdown_table(head, table)


def _predictors(outcomes: Outcomes, systems: Sequence[str]) -> str:
    table = []
    for system in systems:
        steps, seconds = (over_seeds(outcomes, "weights", system, TRAINED, name) for name in ("steps", "cpu_s"))
        spent = over_seeds(outcomes, "predictor", system, TRAINED, "cpu_s")
        ratios = [over_seeds(outcomes, "predictor", system, name, "one_step") for name in (TRAINED, TWIN)]
        played = [_played(outcomes, system, name) for name in (TRAINED, TWIN)]
        killed = any(
            outcome.get("at_least")
            for cell, outcome in outcomes.items()
            if (cell.kind, cell.system) == ("weights", system)
        )
        table.append([
            system, f"{steps[0]:.0f}" if steps else MISSING, ("≥ " if killed else "") + _minutes(seconds),
            *(shown(ratio, digits=3) for ratio in ratios), _minutes(spent), *(one[0] for one in played),
            *(one[1] for one in played),
        ])  # fmt: skip
    return markdown_table(PREDICTED, table)


def _played(outcomes: Outcomes, system: str, encoder: str) -> tuple[str, str]:
    for cell, outcome in outcomes.items():
        if (cell.kind, cell.system, cell.encoder) == ("reach", system, encoder) and FAILED not in outcome:
            low, high = outcome["wilson_95"]
            median = MISSING if outcome["median_cm"] is None else f"{outcome['median_cm']:.1f} cm"
            return f"{outcome['success_5cm']:.0%} ({low:.0%}–{high:.0%})", median
    return MISSING, MISSING


def _minutes(seconds: Sequence[float] | None) -> str:
    return MISSING if seconds is None else f"{seconds[0] / 60:.1f}"


def shown(spread: Sequence[float] | None, *, digits: int = 2) -> str:
    """Mean and, with several seeds, spread as text."""
    if not spread:
        return MISSING
    return f"{spread[0]:.{digits}f}" + (f" ± {spread[1]:.{digits}f}" if spread[2] > 1 else "")
