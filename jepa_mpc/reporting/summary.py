"""Summarises episodes into table rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from jepa_mpc.reporting.intervals import (
    area_under_curve,
    difference_interval,
    holm,
    mcnemar,
    quantiles,
    rate_interval,
    wilson,
)
from jepa_mpc.reporting.record import EpisodeRecord, Protocol, Report
from jepa_mpc.seeding import numpy_generator

Row = dict[str, Any]
AT_GOAL_M = 1e-6
FAR_M = 10.0  # replaces the distance of a diverged episode in rank tests


def summarise(records: Sequence[EpisodeRecord]) -> Row:
    """The metrics of one method. Rates are fractions in [0, 1]; success is evaluated on the final pose.

    `interval_95` is the bootstrap over labs, or Wilson's interval where all episodes end alike; `iqr` holds the
    quartiles [q25, q75] of the final distance in metres; `min_distance_m` is the median over episodes of the smallest
    distance. A diverged episode counts as infinitely far in every metric but `mean_final_distance_m`, which is then
    None.

    Raises:
        ValueError: If there are no records.
    """
    if not records:
        raise ValueError("need at least one record to summarise")
    final = np.array([record.final_distance_m for record in records])
    within = [record.success_5cm for record in records]
    labs = [lab_of(record) for record in records]
    times = np.concatenate([np.asarray(record.ms_per_step, dtype=np.float64) for record in records])
    return {
        "episodes": len(records),
        "labs": len(set(labs)),
        "success_5cm": float(np.mean(within)),
        "success_2cm": float(np.mean([record.success_2cm for record in records])),
        "held_success_5cm": float(np.mean([record.held_success_5cm for record in records])),
        "wilson_95": list(wilson(sum(within), len(within))),
        "interval_95": list(rate_interval(within, labs, generator=numpy_generator(0, "bootstrap"))),
        "median_final_distance_m": _quantile(final, 0.5),
        "mean_final_distance_m": float(final.mean()) if np.isfinite(final).all() else None,
        "iqr": [_quantile(final, 0.25), _quantile(final, 0.75)],
        "min_distance_m": _quantile(np.array([_closest(record) for record in records]), 0.5),
        "normalised_progress": _quantile(np.array([_progress(record) for record in records]), 0.5),
        "auc_20cm": area_under_curve(final),
        "solved_at_start": float(np.mean([record.distances_m[0] <= 0.05 for record in records])),
        "diverged": int((~np.isfinite(final)).sum()),
        "clipped_share": _mean_known([record.clipped_share for record in records]),
        "ms_per_step_p50": _quantile(times, 0.5),
        "ms_per_step_p95": _quantile(times, 0.95),
    }


def compare(records: Sequence[EpisodeRecord], others: Mapping[str, Sequence[EpisodeRecord]]) -> dict[str, Row]:
    """Compare one method with others on the episodes that both played (same lab, start and goal).

    Each row holds the number of pairs, the difference of the success rates with its interval (`difference_interval`),
    McNemar's exact p-value and Wilcoxon's for the final distances, both adjusted over the rows by Holm's method.
    """
    mine = {record.key: record for record in records}
    rows: dict[str, Row] = {}
    for name, theirs in others.items():
        pairs = [(mine[other.key], other) for other in theirs if other.key in mine]
        if pairs:
            rows[name] = _paired(pairs)
    for test in ("mcnemar_p", "wilcoxon_p"):
        for row, adjusted in zip(rows.values(), holm([row[test] for row in rows.values()]), strict=True):
            row[test] = adjusted
    return rows


def make_report(protocol: Protocol, records: Sequence[EpisodeRecord]) -> Report:
    """Group episodes into headline, baselines and factors, and summarise each.

    The headline is `protocol.method` on `protocol.split`; other methods on that split are baselines; the headline
    method on other splits gives the factors.

    Raises:
        ValueError: If no episode belongs to the headline.
    """
    baselines: dict[str, list[EpisodeRecord]] = {}
    factors: dict[str, list[EpisodeRecord]] = {}
    headline: list[EpisodeRecord] = []
    for record in records:
        if record.split == protocol.split:
            group = headline if record.method == protocol.method else baselines.setdefault(record.method, [])
            group.append(record)
        elif record.method == protocol.method:
            factors.setdefault(record.split, []).append(record)
    if not headline:
        raise ValueError(f"no episode of method {protocol.method!r} on split {protocol.split!r} was recorded")
    return Report(
        protocol=protocol,
        summary=summarise(headline),
        baselines={name: summarise(group) for name, group in baselines.items()},
        factors={name: summarise(group) for name, group in factors.items()},
        comparisons=compare(headline, baselines),
        episodes=tuple(records),
    )


def lab_of(record: EpisodeRecord) -> tuple[str, str, int]:
    """Key of a lab: split, name and number."""
    return (record.split, record.lab, record.lab_index)


def _paired(pairs: Sequence[tuple[EpisodeRecord, EpisodeRecord]]) -> Row:
    first = [mine.success_5cm for mine, _ in pairs]
    second = [other.success_5cm for _, other in pairs]
    gains = [int(mine) - int(other) for mine, other in zip(first, second, strict=True)]
    labs = [lab_of(mine) for mine, _ in pairs]
    final = [(min(mine.final_distance_m, FAR_M), min(other.final_distance_m, FAR_M)) for mine, other in pairs]
    gaps = np.array([mine - other for mine, other in final])
    return {
        "pairs": len(pairs),
        "difference": float(np.mean(gains)),
        "interval_95": list(difference_interval(gains, labs, generator=numpy_generator(0, "bootstrap"))),
        "mcnemar_p": mcnemar(first, second),
        "wilcoxon_p": float(scipy.stats.wilcoxon(gaps).pvalue) if np.any(gaps) else 1.0,
    }


def _quantile(values: NDArray[np.float64], share: float) -> float | None:
    """A quantile; None if there are no values or if it is infinite."""
    if not len(values):
        return None
    found = float(quantiles(values, [share])[0])
    return found if math.isfinite(found) else None


def _closest(record: EpisodeRecord) -> float:
    return min((distance for distance in record.distances_m if math.isfinite(distance)), default=math.inf)


def _progress(record: EpisodeRecord) -> float:
    """1 - d_T / d_0; an episode that starts at its goal counts as 1 if it ends there."""
    start = record.distances_m[0]
    if start < AT_GOAL_M:
        return 1.0 if record.success_5cm else 0.0
    return 1 - record.final_distance_m / start


def _mean_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
