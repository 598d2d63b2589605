"""The figures of a benchmark: cost over evaluations, and quality over time with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from jepa_mpc.experiments.benchmarking.cells import Outcome
from jepa_mpc.experiments.benchmarking.summary import Row
from jepa_mpc.experiments.reporting.figures import FAINT, INK, STYLE
from jepa_mpc.experiments.reporting.stats import quantiles
from jepa_mpc.files import atomic_file

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A6A00", "#262B33", "#8A5FBF", "#A0522D")
MARKERS = "os^DvPX*<>"
FLOOR = 1e-3  # of the largest cost above the best known: what is below it is drawn at it
BASELINE_DASHES: Mapping[str, Any] = {"nothing": (0, (5, 2)), "random": (0, (1, 1.3)), "oracle": "-"}


def draw(rows: Sequence[Row], outcomes: Sequence[Outcome], folder: Path) -> dict[str, Path]:
    """Draw both figures, one panel per task.

    Returns:
        The path of each figure by its name.

    Raises:
        OSError: If a file cannot be written.
    """
    tasks = list(dict.fromkeys((row["task"]) for row in rows))
    names = list(dict.fromkeys(row["planner"] for row in rows if not row["baseline"]))
    looks = {name: (COLOURS[n % len(COLOURS)], MARKERS[n % len(MARKERS)]) for n, name in enumerate(names)}
    mine = {task: [row for row in rows if row["task"] == task] for task in tasks}
    played = {task: [each for each in outcomes if each.cell.task == task] for task in tasks}
    plots: dict[str, Callable[[Axes, str], None]] = {
        "cost_over_evaluations": lambda axes, task: over_evaluations(axes, played[task], looks),
        "quality_over_time": lambda axes, task: over_time(axes, mine[task], looks),
    }
    made = {}
    for name, plot in plots.items():
        made[name] = folder / f"{name}.png"
        with rc_context(STYLE):
            figure = _panels(tasks, plot, looks)
            with atomic_file(made[name]) as draft:
                FigureCanvasAgg(figure).print_figure(str(draft), dpi=150, format="png")
    return made


def over_evaluations(axes: Axes, outcomes: Sequence[Outcome], looks: Mapping[str, tuple[str, str]]) -> None:
    """Cost of the best plan so far above the best that any search of the start found; median and middle half.

    Of each planner its largest budget is shown. Costs are what the planner believes, in the unit of its world.
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
    axes.set(xscale="log", yscale="log", xlabel="plans scored", ylabel="cost above the best found")
    _plain_ticks(axes)


def over_time(axes: Axes, rows: Sequence[Row], looks: Mapping[str, tuple[str, str]]) -> None:
    """Mean cost above the best known against the busy seconds of a search; the front that nothing beats in both."""
    known = [row["regret"] for row in rows if row["regret"] is not None]
    floor = FLOOR * max([value for value in known if value > 0], default=1.0)
    points: list[tuple[float, float]] = []
    places = {name: 0.34 * index for index, name in enumerate(BASELINE_DASHES)}  # so that their names do not overlap
    for row in rows:
        if row["regret"] is None:
            continue
        height = max(floor, row["regret"])
        if row["baseline"]:
            axes.axhline(height, color=FAINT, lw=1.0, ls=BASELINE_DASHES[row["planner"]], zorder=1)
            axes.annotate(
                row["planner"], (places[row["planner"]], height), xycoords=("axes fraction", "data"), xytext=(4, 2),
                textcoords="offset points", color=FAINT, fontsize=8,
            )  # fmt: skip
            continue
        colour, marker = looks[row["planner"]]
        axes.plot(row["cpu_s"], height, marker, color=colour, ms=7, mec="white", zorder=3)
        points.append((row["cpu_s"], height))
    front = pareto(points)
    axes.step(*zip(*front, strict=True), where="post", color=INK, lw=1.2, zorder=2) if front else None
    axes.set(xscale="log", yscale="log", xlabel="CPU seconds per search", ylabel="mean cost above the best known")
    _plain_ticks(axes)


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those points that no other one beats in both numbers, from left to right."""
    front: list[tuple[float, float]] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def _plain_ticks(axes: Axes) -> None:
    """Numbers such as 0.2 and 50 along a logarithmic axis of one or two decades."""
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _steps(outcome: Outcome, grid: np.ndarray) -> np.ndarray:
    """Best cost so far at numbers of plans; infinite before the first round is done."""
    counts = np.array([count for count, _, _ in outcome.curve])
    costs = np.array([math.inf, *(cost for _, cost, _ in outcome.curve)])
    return costs[np.searchsorted(counts, grid, side="right")]


def _panels(tasks: Sequence[str], plot: Callable[[Axes, str], None], looks: Mapping[str, tuple[str, str]]) -> Figure:
    columns = min(3, len(tasks))
    lines = -(-len(tasks) // columns)
    figure = Figure(figsize=(max(5.2, 4.0 * columns), 3.4 * lines + 0.6), layout="constrained")
    for number, task in enumerate(tasks):
        axes = figure.add_subplot(lines, columns, number + 1)
        plot(axes, task)
        axes.set_title(task)
    shown = figure.axes[0]
    for name, (colour, marker) in looks.items():
        shown.plot([], [], marker=marker, color=colour, lw=1.8, mec="white", label=name)
    figure.legend(loc="outside lower center", ncols=min(6, len(looks)), frameon=False)
    return figure
