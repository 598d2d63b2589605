"""The figures of a report, in one style that people with any colour vision can read (Okabe and Ito's colours)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from jepa_mpc.experiments.reporting.record import Report, split_name
from jepa_mpc.experiments.reporting.stats import quantiles, success_curve, wilson
from jepa_mpc.files import atomic_file

BLUE, GREEN, RED, INK, FAINT, RULE = "#0072B2", "#009E73", "#D55E00", "#262B33", "#8A8F98", "#DEDCD5"
BASELINE_COLOURS = ("#8A8F98", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#7A6A00", "#262B33")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.3)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
MARKS_CM = (2.0, 5.0)
STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.titlepad": 12,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ECEAE4",
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


def draw_figures(report: Report, folder: Path | str) -> dict[str, Path]:
    """Draw all figures that the report has data for.

    Returns:
        The path of each figure by its file name without suffix, in reading order.

    Raises:
        OSError: If a file cannot be written.
    """
    plots: dict[str, tuple[Callable[[Axes, Report], None], tuple[float, float]]] = {
        "distance_over_steps": (distance_over_steps, (7.4, 4.2)),
        "success_over_threshold": (success_over_threshold, (7.4, 4.2)),
        "distance_per_lab": (distance_per_lab, (7.4, 4.2)),
    }
    if report.factors:
        plots["success_per_factor"] = (success_per_factor, (7.4, 1.5 + 0.34 * (len(report.factors) + 1)))
    if any(episode.ms_per_step for episode in report.of(report.protocol.method)):
        plots["latency"] = (latency, (7.4, 3.4))
    made = {}
    for name, (plot, size) in plots.items():
        made[name] = Path(folder) / f"{name}.png"
        with rc_context(STYLE):
            figure = Figure(figsize=size, layout="constrained")
            plot(figure.add_subplot(), report)
            with atomic_file(made[name]) as draft:
                FigureCanvasAgg(figure).print_figure(str(draft), dpi=150, format="png")
    return made


def distance_over_steps(axes: Axes, report: Report) -> None:
    """Median distance to the goal at each step, with the middle half of the episodes; baselines as thin lines."""
    method = report.protocol.method
    curves = _padded([episode.distances_m for episode in report.of(method)]) * 100
    steps = np.arange(curves.shape[1])
    low, middle, high = quantiles(curves, [0.25, 0.5, 0.75])
    _threshold_lines(axes.axhline)
    ends = []
    for index, name in enumerate(report.baselines):
        baseline = 100 * quantiles(_padded([episode.distances_m for episode in report.of(name)]), [0.5])[0]
        axes.plot(np.arange(len(baseline)), baseline, lw=1.3, **_look(index))
        ends.append((len(baseline) - 1.0, float(baseline[-1]), name, _look(index)["color"]))
    axes.fill_between(steps, low, high, color=BLUE, alpha=0.18, lw=0)
    axes.plot(steps, middle, color=BLUE, lw=2.6)
    ends.append((len(middle) - 1.0, float(middle[-1]), method, BLUE))
    imagined = [episode.imagined_m for episode in report.of(method) if episode.imagined_m]
    if imagined:
        believed = 100 * quantiles(_padded(imagined), [0.5])[0]
        axes.plot(
            np.arange(len(believed)), believed, color=BLUE, lw=1.2, ls=(0, (1, 1.5)), label="as the model sees it"
        )
        axes.legend(frameon=False, loc="upper right")
    tops = [end for _, end, _, _ in ends if math.isfinite(end)] + [float(v) for v in high if math.isfinite(v)]
    axes.set(xlim=(0, max(1, len(middle) - 1)), ylim=(0, 1.12 * max([6.0, *tops])))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="step", ylabel="distance to goal (cm)", title="How close the gripper comes")
    _label_ends(axes, ends)


def success_over_threshold(axes: Axes, report: Report) -> None:
    """Share of episodes that end within a distance, for every distance up to 20 cm, with Wilson's band."""
    limits = np.linspace(0, 0.2, 201)
    final = [episode.final_distance_m for episode in report.of(report.protocol.method)]
    _threshold_lines(axes.axvline)
    ends = []
    for index, name in enumerate(report.baselines):
        curve = 100 * success_curve([episode.final_distance_m for episode in report.of(name)], limits)
        axes.plot(100 * limits, curve, lw=1.3, **_look(index))
        ends.append((20.0, float(curve[-1]), name, _look(index)["color"]))
    share = success_curve(final, limits)
    band = np.array([wilson(round(value * len(final)), len(final)) for value in share])
    axes.fill_between(100 * limits, 100 * band[:, 0], 100 * band[:, 1], color=BLUE, alpha=0.18, lw=0)
    axes.plot(100 * limits, 100 * share, color=BLUE, lw=2.6)
    ends.append((20.0, float(100 * share[-1]), report.protocol.method, BLUE))
    axes.set(xlim=(0, 20), ylim=(0, 103), xlabel="final distance at most (cm)", ylabel="episodes (%)")
    axes.set_xticks([0, *MARKS_CM, 10, 15, 20])
    axes.set_title("Success, however strictly one judges")
    _label_ends(axes, ends)


def distance_per_lab(axes: Axes, report: Report) -> None:
    """Final distance of every episode, one column per lab, the labs ordered by their worst episode."""
    labs: dict[tuple[str, int], list[float]] = {}
    for episode in report.of(report.protocol.method):
        labs.setdefault((episode.lab, episode.lab_index), []).append(100 * episode.final_distance_m)
    known = [value for values in labs.values() for value in values if math.isfinite(value)]
    ceiling = max([7.0, *known]) * 1.15
    columns = sorted(([min(v, 0.97 * ceiling) for v in values] for values in labs.values()), key=max, reverse=True)
    _threshold_lines(axes.axhline)
    for place, values in enumerate(columns):
        axes.plot([place, place], [min(values), max(values)], color=RULE, lw=2.2, zorder=1)
        colours = [GREEN if value <= MARKS_CM[1] else RED for value in values]
        axes.scatter([place] * len(values), values, s=20, c=colours, edgecolors="white", linewidths=0.5, zorder=3)
        lost = [value for value in values if value > max([7.0, *known])]
        axes.scatter([place] * len(lost), lost, s=46, c=RED, marker="X", edgecolors="white", linewidths=0.5, zorder=4)
    if len(known) < sum(map(len, columns)):
        axes.scatter([], [], s=46, c=RED, marker="X", label="simulation diverged")
    axes.scatter([], [], s=20, c=GREEN, label="within 5 cm")
    axes.scatter([], [], s=20, c=RED, label="not within 5 cm")
    axes.legend(frameon=False, loc="upper right")
    axes.grid(visible=False, axis="x")
    axes.set(xlim=(-0.8, len(columns) - 0.2), ylim=(0, ceiling), xticks=[])
    axes.set(
        xlabel=f"{len(columns)} labs, hardest first", ylabel="final distance (cm)", title="Every episode, lab by lab"
    )


def success_per_factor(axes: Axes, report: Report) -> None:
    """Success at 5 cm with one factor out of its training range at a time, with Wilson's whiskers."""
    rows = [(f"{split_name(report.protocol.split)} (headline)", report.summary), *report.factors.items()]
    rows.sort(key=lambda row: row[1]["success_5cm"])
    for place, (_, row) in enumerate(rows):
        colour = BLUE if row is report.summary else INK
        low, high = (100 * bound for bound in row["wilson_95"])
        rate = 100 * row["success_5cm"]
        axes.plot([0, rate], [place, place], color=colour, lw=5, alpha=0.14, solid_capstyle="butt")
        axes.plot([low, high], [place, place], color=colour, lw=1.8)
        axes.plot(rate, place, "o", color=colour, ms=6.5, mec="white")
        axes.text(
            115, place, f"{rate:.1f} %".replace(".0 %", " %"), va="center", ha="right", color=colour, clip_on=False
        )
    axes.grid(visible=False, axis="y")
    axes.set(xlim=(0, 115), ylim=(-0.6, len(rows) - 0.4), xlabel="episodes within 5 cm (%)", xticks=range(0, 101, 20))
    axes.set_yticks(range(len(rows)), [split_name(name) for name, _ in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_title("What breaks it: one factor out of range at a time")


def latency(axes: Axes, report: Report) -> None:
    """Time of each decision of the headline method; the slowest hundredth is gathered at the right end."""
    episodes = report.of(report.protocol.method)
    times = np.concatenate([np.asarray(episode.ms_per_step, dtype=np.float64) for episode in episodes])
    times = times[np.isfinite(times)]
    end = float(np.quantile(times, 0.99)) * 1.08 + 1e-9
    axes.hist(np.minimum(times, end), bins=40, range=(0, end), color=BLUE, alpha=0.75, edgecolor="white", linewidth=0.6)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.18)
    for share, align in ((0.5, "right"), (0.95, "left")):
        value = float(np.quantile(times, share))
        axes.axvline(value, color=INK, lw=1, ls=(0, (4, 2)))
        text = f"{100 * share:.0f} % within {value:.0f} ms"
        offset = (-5 if align == "right" else 5, -4)
        axes.annotate(
            text, (value, 1), xycoords=("data", "axes fraction"), xytext=offset, textcoords="offset points",
            ha=align, va="top", color=INK,
        )  # fmt: skip
    axes.grid(visible=False, axis="x")
    axes.set(xlim=(0, end), xlabel="time per decision (ms)", ylabel="decisions", title="Time to think")


def _padded(curves: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Curves of any lengths as rows; short ones keep their last value, broken values count as infinitely far."""
    longest = max(len(curve) for curve in curves)
    rows = np.array([[*curve, *[curve[-1]] * (longest - len(curve))] for curve in curves], dtype=np.float64)
    return np.where(np.isfinite(rows), rows, np.inf)


def _look(index: int) -> dict[str, Any]:
    """Colour and dashes of the index-th baseline."""
    return {"color": BASELINE_COLOURS[index % len(BASELINE_COLOURS)], "ls": DASHES[index % len(DASHES)]}


def _threshold_lines(line: Callable[..., Any]) -> None:
    for mark in MARKS_CM:
        line(mark, color=FAINT, lw=1.0, ls=(0, (3, 3)), zorder=1)


def _label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write each curve's name at its right end, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    apart = (high - low) * 12.5 / (72 * axes.figure.bbox.height / axes.figure.dpi * 0.76)  # points per axis unit
    placed = low - apart
    order = sorted(ends, key=lambda end: min(end[1], high))
    highest = [high - apart * (len(order) - 1 - rank) for rank in range(len(order))]
    for (x, y, name, colour), room in zip(order, highest, strict=True):
        placed = max(placed + apart, min(y, room))
        axes.annotate(
            name, (x, min(y, high)), xytext=(1.02, placed), textcoords=("axes fraction", "data"), va="center",
            color=colour, annotation_clip=False, fontweight="bold" if colour == BLUE else "normal",
        )  # fmt: skip
