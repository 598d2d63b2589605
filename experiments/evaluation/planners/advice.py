"""A recommendation of a planner: the summary over all tasks of a benchmark, and one sentence of advice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jepa_mpc.experiments.evaluation.planners.cells import CLOSED
from jepa_mpc.experiments.evaluation.planners.planner_table import Row

NEARLY = 0.05  # success and regret share that a faster choice may lose
QUICKER = 0.6  # its maximal share of the busy time
FEW_STARTS = 20


def across(rows: Sequence[Row]) -> list[Row]:
    """One row for each planner at each budget over all tasks, the best first.

    `rank` is the mean over tasks of its place, by mean cost, among the `rivals` with the same budget; `regret_share`
    the mean of its regret as a share of the regret of doing nothing (0: the best known, 1: nothing done); `success`
    the mean success in closed loop, None in open mode; `busy_ms` the geometric mean of the busy time per plan.

    Args:
        rows: The rows of `planner_table.table`.
    """
    idle = {row["task"]: row["regret"] for row in rows if row["planner"] == "nothing"}
    groups: dict[tuple[str, int | None], list[Row]] = {}
    for row in rows:
        if not row["baseline"]:
            groups.setdefault((row["planner"], row["budget"]), []).append(row)
    found = [_over_tasks(group, rows, idle) for group in groups.values()]
    return sorted(found, key=_order)


def advice(overall: Sequence[Row]) -> str:
    """One or two sentences: the best planner, a nearly as good and faster one, and the evidence; "" without rows.

    Args:
        overall: The rows of `across`; only planners that played every task are recommended.
    """
    tasks = max((row["tasks"] for row in overall), default=0)
    whole = [row for row in overall if row["tasks"] == tasks and row["regret_share"] is not None]
    if not whole:
        return ""
    best = whole[0]
    text = f"Take {_name(best)}: {_merits(best)}"
    near = [row for row in whole if _nearly(row, best)]
    if near:
        quick = min(near, key=lambda row: row["busy_ms"])
        text += f"; {_name(quick)} is nearly as good and quicker ({_merits(quick)})"
    starts = min(row["starts"] for row in whole)
    few = (
        f" Known from {starts} start{'s' if starts > 1 else ''} per task: an indication." if starts < FEW_STARTS else ""
    )
    return f"{text}.{few}"


def _over_tasks(group: Sequence[Row], rows: Sequence[Row], idle: dict[str, float | None]) -> Row:
    name, budget, closed = group[0]["planner"], group[0]["budget"], group[0]["mode"] == CLOSED
    ranks, rivals, shares = [], [], []
    for row in group:
        others = [each for each in rows if _rivals(each, row)]
        costs = [math.inf if each["cost"] is None else each["cost"] for each in others]
        mine = math.inf if row["cost"] is None else row["cost"]
        ranks.append(1 + sum(cost < mine for cost in costs))
        rivals.append(len(others))
        nothing = idle.get(row["task"])
        shares.append(row["regret"] / nothing if row["regret"] is not None and nothing else None)
    known = [share for share in shares if share is not None]
    return {
        "planner": name,
        "budget": budget,
        "baseline": False,
        "tasks": len(group),
        "starts": min(row["starts"] for row in group),
        "rank": float(np.mean(ranks)),
        "rivals": max(rivals),
        "success": float(np.mean([row["success"] for row in group])) if closed else None,
        "regret_share": float(np.mean(known)) if len(known) == len(shares) else None,
        "busy_ms": float(1e3 * np.exp(np.mean([np.log(max(row["cpu_s"], 1e-9)) for row in group]))),
    }


def _rivals(one: Row, other: Row) -> bool:
    return not one["baseline"] and (one["task"], one["budget"]) == (other["task"], other["budget"])


def _order(row: Row) -> tuple[float, ...]:
    share = math.inf if row["regret_share"] is None else row["regret_share"]
    return (-row["tasks"], -(row["success"] or 0.0), share, row["rank"])


def _nearly(row: Row, best: Row) -> bool:
    return bool(
        row["busy_ms"] <= QUICKER * best["busy_ms"]
        and (row["success"] or 0.0) >= (best["success"] or 0.0) - NEARLY
        and row["regret_share"] <= best["regret_share"] + NEARLY
    )


def _name(row: Row) -> str:
    return row["planner"] if row["budget"] is None else f"{row['planner']} with {row['budget']} evaluations"


def _merits(row: Row) -> str:
    success = "" if row["success"] is None else f"{100 * row['success']:.0f} % success, "
    return (
        f"{success}{100 * row['regret_share']:.1f} % of the regret of doing nothing, mean rank {row['rank']:.1f} of "
        f"{row['rivals']}, {row['busy_ms']:.3g} ms busy per plan"
    )
