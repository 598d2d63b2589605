"""Computes the rows of a table from the outcomes of cells."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy

from jepa_mpc.experiments.evaluation.planners.cells import Outcome
from jepa_mpc.reporting.intervals import cluster_bootstrap, clustered_wilson
from jepa_mpc.seeding import numpy_generator

Row = dict[str, Any]
COLUMNS = (
    *(
        "mode",
        "task",
        "dynamics",
        "planner",
        "budget",
        "runs",
        "starts",
        "success",
        "success_low",
        "success_high",
        "ever",
    ),
    *(
        "solved_at_start",
        "broken",
        "believed",
        "cost",
        "regret",
        "regret_low",
        "regret_high",
        "regret_median",
        "evaluations",
    ),
    *("cpu_s", "wall_s", "p50_ms", "p99_ms", "plans", "cost_to_reference", "difference", "difference_low"),
    *("difference_high", "wilcoxon_p", "evaluations_to_reference"),
)
ENOUGH_FOR_P99 = 100


def best_known(outcomes: Sequence[Outcome]) -> dict[tuple[Any, ...], float]:
    """The lowest cost on each start, baselines included, by the `place` of the cells."""
    best: dict[tuple[Any, ...], float] = {}
    for each in outcomes:
        best[each.cell.place] = min(each.cost, best.get(each.cell.place, math.inf))
    return best


def table(outcomes: Sequence[Outcome], *, reference: str | None = None) -> list[Row]:
    """One row for each planner at each budget on each task; regrets are costs above the best known of each start.

    Args:
        outcomes: The outcomes of the cells.
        reference: Name of the planner that the others are compared with, start by start and seed by seed, or None.
    """
    best = best_known(outcomes)
    groups: dict[tuple[Any, ...], list[Outcome]] = {}
    for each in outcomes:
        groups.setdefault(each.cell.contest, []).append(each)
    referees = {key: group for key, group in groups.items() if key[3] == reference}
    rows = []
    for key, group in groups.items():
        row = _row(group, best)
        other = next((referee for name, referee in referees.items() if name[:2] == key[:2]), None)
        if other is not None and not group[0].cell.baseline:
            row |= _against(group, other)
        rows.append(row)
    return rows


def as_csv(rows: Sequence[Row]) -> str:
    """The table as comma-separated text; unknown values are left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: row.get(key) for key in COLUMNS} for row in rows)
    return text.getvalue()


def _row(group: Sequence[Outcome], best: Mapping[tuple[Any, ...], float]) -> Row:
    cell, runs = group[0].cell, len(group)
    regrets = np.array([each.cost - best[each.cell.place] if math.isfinite(each.cost) else np.inf for each in group])
    starts = [each.cell.start for each in group]
    low, high = clustered_wilson([each.success for each in group], starts)
    seconds = np.array([second for each in group for second in each.wall_s])
    busy = [second for each in group for second in each.cpu_s]
    counts = [count for each in group for count in each.evaluations]
    whole = bool(np.isfinite(regrets).all())
    bounds = cluster_bootstrap(regrets, starts, generator=numpy_generator(0, "bootstrap")) if whole else (None, None)
    return {
        **dict(zip(("mode", "task", "dynamics", "planner", "budget"), cell.contest, strict=True)),
        "baseline": cell.baseline,
        "arguments": dict(cell.arguments),
        "runs": runs,
        "starts": len(set(starts)),
        "success": sum(each.success for each in group) / runs,
        "success_low": low,
        "success_high": high,
        "ever": sum(each.ever for each in group) / runs,
        "solved_at_start": sum(each.solved_at_start for each in group),
        "broken": int((~np.isfinite(regrets)).sum()),
        "believed": _believed(group),
        "cost": float(np.mean([each.cost for each in group])) if whole else None,
        "regret": float(regrets.mean()) if whole else None,
        "regret_low": bounds[0],
        "regret_high": bounds[1],
        "regret_median": float(np.median(regrets)) if np.isfinite(np.median(regrets)) else None,
        "evaluations": float(np.mean(counts)) if counts else None,
        "cpu_s": float(np.mean(busy)) if busy else None,
        "wall_s": float(seconds.mean()) if seconds.size else None,
        "p50_ms": float(1e3 * np.percentile(seconds, 50)) if seconds.size else None,
        "p99_ms": float(1e3 * np.percentile(seconds, 99)) if seconds.size >= ENOUGH_FOR_P99 else None,
        "plans": len(seconds),
        "statuses": {name: sum(each.statuses.get(name, 0) for each in group) for name in _statuses(group)},
    }


def _believed(group: Sequence[Outcome]) -> float | None:
    """Mean predicted cost of the first plans, in the unit of their world."""
    known = [each.believed for each in group if each.believed is not None and math.isfinite(each.believed)]
    return float(np.mean(known)) if known and len(known) == len(group) else None


def _against(group: Sequence[Outcome], other: Sequence[Outcome]) -> Row:
    """Comparison of two planners on the same starts and seeds; negative differences favour the first."""
    theirs = {(each.cell.start, each.cell.seed): each for each in other}
    pairs = [(each, theirs[key]) for each in group if (key := (each.cell.start, each.cell.seed)) in theirs]
    gaps = np.array([mine.cost - their.cost for mine, their in pairs])
    if not pairs or not np.isfinite(gaps).all():
        return {}
    starts = [mine.cell.start for mine, _ in pairs]
    low, high = cluster_bootstrap(gaps, starts, generator=numpy_generator(0, "bootstrap"))
    cost = float(np.mean([their.cost for _, their in pairs]))
    spent = [float(np.mean([sum(each.evaluations) for each in side])) for side in zip(*pairs, strict=True)]
    return {
        "cost_to_reference": 1 + float(gaps.mean()) / cost if cost > 0 else None,
        "difference": float(gaps.mean()),
        "difference_low": low,
        "difference_high": high,
        "wilcoxon_p": float(scipy.stats.wilcoxon(gaps).pvalue) if np.any(gaps) else 1.0,
        "evaluations_to_reference": spent[0] / spent[1] if spent[1] else None,
    }


def _statuses(group: Sequence[Outcome]) -> list[str]:
    return sorted({name for each in group for name in each.statuses})
