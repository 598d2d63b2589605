"""The figures of a benchmark: cost over evaluations, quality over time with the Pareto front, success over budgets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from jepa_mpc.experiments.evaluation.planners.cells import CLOSED, LEARNED, Outcome
from jepa_mpc.experiments.evaluation.planners.planner_table import Row
from jepa_mpc.reporting.figures import FAINT, INK, STYLE
from jepa_mpc.reporting.intervals import quantiles
from jepa_mpc.reporting.saving import save_figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A6A00", "#262B33", "#8A5FBF", "#A0522D")
MARKERS = "os^DvPX*<>"
FLOOR = 1e-3  # of the largest cost above the best known; smaller values are drawn at it
WIDTH_IN = 11.0  # the page's whole width, so that texts keep their size
BASELINE_DASHES: Mapping[str, Any] = {"nothing": (0, (5, 2)), "random": (0, (1, 1.3)), "oracle": "-"}
CAPTIONS = {
    "cost_over_evaluations": "Cost over evaluations. “Believed”: what the first search thought its best plan so far "
    "would cost, above the lowest believed cost of the start, in the unit of the world that was planned in; median "
    "and middle half over the runs with the planner's largest budget. “True”: the task's cost of the course that was "
    "really taken, above the best known; mean over all runs, one point per budget. In a learned world "
    "the two can disagree: only the true cost counts.",
    "quality_over_time": "Mean true cost above the best known over the busy time of a search; numbers at the points "
    "are budgets, the line is the front that no other planner beats in both. Points on the lower edge are "
    "the best known, or within a thousandth of the largest regret.",
    "success_over_budget": "Success in closed loop over the evaluations per plan, with 95 % intervals over starts.",
}
Looks = Mapping[str, tuple[str, str]]
Plot = Callable[[Axes, str], None]


def draw(rows: Sequence[Row], outcomes: Sequence[Outcome], folder: Path) -> dict[str, Path]:
    """Draw all figures for which there is data, with panels for each task.

    Returns:
        The path of each figure by its name, a key of `CAPTIONS`.

    Raises:
        OSError: If a file cannot be written.
    """
    tasks = list(dict.fromkeys((row["task"]) for row in rows))
    names = list(dict.fromkeys(row["planner"] for row in rows if not row["baseline"]))
    looks = {name: (COLOURS[n % len(COLOURS)], MARKERS[n % len(MARKERS)]) for n, name in enumerate(names)}
    mine = {task: [row for row in rows if row["task"] == task] for task in tasks}
    played = {task: [each for each in outcomes if each.cell.task == task] for task in tasks}
    plots: dict[str, tuple[Plot, ...]] = {
        "cost_over_evaluations": (
            lambda axes, task: believed_over_evaluations(axes, played[task], looks),
            lambda axes, task: true_over_evaluations(axes, mine[task], looks),
        ),
        "quality_over_time": (lambda axes, task: over_time(axes, mine[task], looks),),
    }
    if any(row["mode"] == CLOSED for row in rows):
        plots["success_over_budget"] = (lambda axes, task: success_over_budget(axes, mine[task], looks),)
    made = {}
    for name, parts in plots.items():
        made[name] = folder / f"{name}.png"
        with rc_context(STYLE):
            figure = _panels(tasks, parts, looks)
            save_figure(figure, made[name])
    return made


def believed_over_evaluations(axes: Axes, outcomes: Sequence[Outcome], looks: Looks) -> None:
    """Predicted cost of the best plan so far above the best that any search of the start found.

    Median and middle half. Each planner is shown with its largest budget.
    """
    searched = [each for each in outcomes if each.curve and math.isfinite(each.curve[-1][1])]
    best: dict[tuple[Any, ...], float] = {}
    for each in searched:
        place = (each.cell.dynamics, *each.cell.place)
        best[place] = min(best.get(place, math.inf), each.curve[-1][1])
    lines = {}
    for name in looks:
        own = [each for each in searched if each.cell.planner == name]
        most = max((each.curve[-1][0] for each in own), default=0)
        own = [each for each in own if each.curve[-1][0] >= 0.9 * most]
        if own:
            grid = np.unique(np.geomspace(max(1, min(each.curve[0][0] for each in own)), most, 60).round())
            gaps = [_steps(each, grid) - best[(each.cell.dynamics, *each.cell.place)] for each in own]
            lines[name] = (grid, quantiles(np.array(gaps), [0.25, 0.5, 0.75]))
    known = [value for _, band in lines.values() for value in band.ravel() if math.isfinite(value) and value > 0]
    floor = FLOOR * max(known, default=1.0)
    for name, (grid, band) in lines.items():
        low, middle, high = (np.maximum(part, floor) for part in band)
        axes.fill_between(grid, low, high, color=looks[name][0], alpha=0.12, lw=0)
        axes.plot(grid, middle, color=looks[name][0], lw=1.8)
        axes.plot(grid[-1], middle[-1], looks[name][1], color=looks[name][0], ms=6, mec="white")
    world = "in the learned world" if any(each.cell.dynamics == LEARNED for each in searched) else "in the simulator"
    axes.set(xscale="log", yscale="log", xlabel="plans scored", ylabel=f"believed cost above the best\n{world}")
    _readable(axes)


def true_over_evaluations(axes: Axes, rows: Sequence[Row], looks: Looks) -> None:
    """Mean true cost above the best known over the evaluations per plan, one point per budget."""
    floor = _floor(rows)
    _baselines(axes, rows, floor)
    for name, (colour, marker) in looks.items():
        own = sorted(
            (row["evaluations"], max(floor, row["regret"]))
            for row in rows
            if row["planner"] == name and row["regret"] is not None
        )
        if own:
            axes.plot(*zip(*own, strict=True), marker=marker, color=colour, lw=1.8, ms=7, mec="white")
    axes.set(xscale="log", yscale="log", xlabel="evaluations per plan", ylabel="true cost above the best known")
    _readable(axes)


def over_time(axes: Axes, rows: Sequence[Row], looks: Looks) -> None:
    """Mean cost above the best known against the CPU seconds of a search, with the Pareto front."""
    floor = _floor(rows)
    _baselines(axes, rows, floor)
    points: list[tuple[float, float]] = []
    for row in rows:
        if row["baseline"] or row["regret"] is None:
            continue
        colour, marker = looks[row["planner"]]
        point = (1e3 * row["cpu_s"], max(floor, row["regret"]))
        axes.plot(*point, marker, color=colour, ms=7, mec="white", zorder=3)
        if row["budget"] is not None:
            axes.annotate(
                str(row["budget"]), point, xytext=(5, 3), textcoords="offset points", color=colour, fontsize=7.5
            )
        points.append(point)
    front = pareto(points)
    axes.step(*zip(*front, strict=True), where="post", color=INK, lw=1.2, zorder=2) if front else None
    axes.set(xscale="log", yscale="log", xlabel="busy time per plan (ms)", ylabel="true cost above the best known")
    _readable(axes)


def success_over_budget(axes: Axes, rows: Sequence[Row], looks: Looks) -> None:
    """Success in percent over the evaluations per plan, with intervals; planners stand side by side at a budget."""
    for number, (name, (colour, marker)) in enumerate(looks.items()):
        own = sorted((row for row in rows if row["planner"] == name), key=lambda row: float(row["evaluations"] or 0))
        aside = 1.04 ** (number - (len(looks) - 1) / 2)
        places = [aside * (row["evaluations"] or 1) for row in own]
        middle = [100 * row["success"] for row in own]
        ends = [[100 * abs(row["success"] - row[end]) for row in own] for end in ("success_low", "success_high")]
        axes.errorbar(places, middle, ends, color=colour, lw=1.4, elinewidth=0.8, marker=marker, ms=7, mec="white")
    axes.set(xscale="log", ylim=(-4, 104), xlabel="evaluations per plan", ylabel="success (%)")
    _readable_axis(axes.xaxis, *axes.get_xlim())


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The non-dominated points (both numbers minimised), from left to right."""
    front: list[tuple[float, float]] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def _floor(rows: Sequence[Row]) -> float:
    return FLOOR * max([row["regret"] for row in rows if row["regret"]], default=1.0)


def _baselines(axes: Axes, rows: Sequence[Row], floor: float) -> None:
    """Lines of the baselines, with their names where they do not overlap."""
    places = {name: 0.34 * index for index, name in enumerate(BASELINE_DASHES)}
    for row in rows:
        if row["baseline"] and row["regret"] is not None:
            name, height = row["planner"], max(floor, row["regret"])
            axes.axhline(height, color=FAINT, lw=1.0, ls=BASELINE_DASHES[name], zorder=1)
            axes.annotate(
                name, (places[name], height), xycoords=("axes fraction", "data"), xytext=(4, 2),
                textcoords="offset points", color=FAINT, fontsize=8, bbox={"fc": "white", "ec": "none", "pad": 0.4},
            )  # fmt: skip


def _readable(axes: Axes) -> None:
    """Plain numbers along both logarithmic axes, and some margin at the sides."""
    axes.margins(x=0.12)
    _readable_axis(axes.xaxis, *axes.get_xlim())
    _readable_axis(axes.yaxis, *axes.get_ylim())


def _readable_axis(axis: Axis, low: float, high: float) -> None:
    """Ticks such as 0.2, 50 and 2000: as many per decade as leave room for their numbers."""
    decades = math.log10(high / low) if 0 < low < high else 1.0
    subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if decades < 0.9 else (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: np.format_float_positional(value, precision=12, trim="-")))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _steps(outcome: Outcome, grid: np.ndarray) -> np.ndarray:
    """Best cost so far at given numbers of plans; infinite before the first round is finished."""
    counts = np.array([count for count, _, _ in outcome.curve])
    costs = np.array([math.inf, *(cost for _, cost, _ in outcome.curve)])
    return costs[np.searchsorted(counts, grid, side="right")]


def _panels(tasks: Sequence[str], plots: Sequence[Plot], looks: Looks) -> Figure:
    """One panel for each task and plot: tasks side by side, three in a row, a row for each plot below one another."""
    columns = min(3, len(tasks)) if len(tasks) > 1 else len(plots)
    lines = -(-len(tasks) // columns) * len(plots) if len(tasks) > 1 else 1
    figure = Figure(figsize=(WIDTH_IN, 3.5 * lines + 0.6), layout="constrained")
    for number, task in enumerate(tasks):
        for part, plot in enumerate(plots):
            line, column = divmod(number, columns) if len(tasks) > 1 else (0, part)
            below = part if len(tasks) > 1 else 0
            axes = figure.add_subplot(lines, columns, (line * len(plots) + below) * columns + column + 1)
            plot(axes, task)
            axes.set_title(task)
    shown = figure.axes[0]
    for name, (colour, marker) in looks.items():
        shown.plot([], [], marker=marker, color=colour, lw=1.8, mec="white", label=name)
    figure.legend(loc="outside lower center", ncols=min(6, len(looks)), frameon=False)
    return figure
