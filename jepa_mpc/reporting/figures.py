"""The figures of a report, in a colour-blind-safe style (colours of Okabe and Ito)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from jepa_mpc.reporting.intervals import quantiles, success_curve, wilson
from jepa_mpc.reporting.record import BUSY, Report, split_name
from jepa_mpc.reporting.saving import save_figure

BLUE, GREEN, RED, INK, FAINT, RULE = "#0072B2", "#009E73", "#D55E00", "#262B33", "#8A8F98", "#DEDCD5"
BASELINE_COLOURS = ("#8A8F98", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#7A6A00", "#262B33")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.3)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
MARKS_CM = (2.0, 5.0)
ENDINGS: dict[str, tuple[str, str, int]] = {  # name -> colour, marker, size
    "within 5 cm": (GREEN, "o", 20),
    "not within 5 cm": (RED, "o", 20),
    "simulation diverged": (RED, "X", 46),
}
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
    """Draw all figures for which the report has data.

    Returns:
        The path of each figure by its file name without suffix, in reading order.

    Raises:
        OSError: If a file cannot be written.
    """
    plots: dict[str, tuple[Callable[[Axes, Report], None], tuple[float, float]]] = {
        "distance_over_steps": (distance_over_steps, (7.4, 4.5)),
        "success_over_threshold": (success_over_threshold, (7.4, 4.5)),
        "distance_per_lab": (distance_per_lab, (7.4, 4.4)),
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
            save_figure(figure, made[name])
    return made


def distance_over_steps(axes: Axes, report: Report) -> None:
    """Median distance to the goal at each step, with the middle half of the episodes; baselines as thin lines."""
    method = report.protocol.method
    rows = _padded([episode.distances_m for episode in report.of(method)]) * 100
    low, middle, high = quantiles(rows, [0.25, 0.5, 0.75])
    medians = {
        name: 100 * quantiles(_padded([episode.distances_m for episode in report.of(name)]), [0.5])[0]
        for name in report.baselines
    }
    _threshold_lines(axes.axhline)
    band = axes.fill_between(np.arange(len(low)), low, high, color=BLUE, alpha=0.18, lw=0)
    band.set_label("middle half of the episodes")
    curves = _draw_curves(axes, medians, method, middle, step=1.0)
    imagined = [episode.imagined_m for episode in report.of(method) if episode.imagined_m]
    if imagined:
        believed = 100 * quantiles(_padded(imagined), [0.5])[0]
        axes.plot(believed, color=BLUE, lw=1.2, ls=(0, (1, 1.5)), label="distance estimated by the model")
    tops = [curve.y[-1] for curve in curves if math.isfinite(curve.y[-1])] + [
        float(v) for v in high if math.isfinite(v)
    ]
    axes.set(xlim=(0, max(1, len(middle) - 1)), ylim=(0, 1.12 * max([6.0, *tops])))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="step", ylabel="distance to goal (cm)", title="How close the gripper comes")
    _legend_below(axes)
    _label_ends(axes, curves)


def success_over_threshold(axes: Axes, report: Report) -> None:
    """Share of episodes that end within a distance, for distances up to 20 cm, with Wilson's band."""
    limits = np.linspace(0, 0.2, 201)
    final = [episode.final_distance_m for episode in report.of(report.protocol.method)]
    shares = {
        name: 100 * success_curve([episode.final_distance_m for episode in report.of(name)], limits)
        for name in report.baselines
    }
    _threshold_lines(axes.axvline)
    share = success_curve(final, limits)
    bounds = np.array([wilson(round(value * len(final)), len(final)) for value in share])
    band = axes.fill_between(100 * limits, 100 * bounds[:, 0], 100 * bounds[:, 1], color=BLUE, alpha=0.18, lw=0)
    band.set_label("Wilson's 95 % interval")
    curves = _draw_curves(axes, shares, report.protocol.method, 100 * share, step=0.1)
    axes.set(xlim=(0, 20), ylim=(0, 103), xlabel="final distance at most (cm)", ylabel="episodes (%)")
    axes.set_xticks([0, *MARKS_CM, 10, 15, 20])
    axes.set_title("Success, however strictly one judges")
    _legend_below(axes)
    _label_ends(axes, curves)


def distance_per_lab(axes: Axes, report: Report) -> None:
    """Final distance of every episode, one column per lab, the labs ordered by their worst episode."""
    labs: dict[tuple[str, int], list[float]] = {}
    for episode in report.of(report.protocol.method):
        labs.setdefault((episode.lab, episode.lab_index), []).append(100 * episode.final_distance_m)
    known = [value for values in labs.values() for value in values if math.isfinite(value)]
    ceiling = 1.15 * max([0.5, *known])
    columns = sorted(labs.items(), key=lambda lab: max(lab[1]), reverse=True)
    kinds: dict[str, list[tuple[int, float]]] = {}
    for place, (_, values) in enumerate(columns):
        shown = [min(value, 0.97 * ceiling) for value in values]
        axes.plot([place, place], [min(shown), max(shown)], color=RULE, lw=2.2, zorder=1)
        for value, height in zip(values, shown, strict=True):
            kinds.setdefault(_ending(value), []).append((place, height))
    for name, (colour, marker, size) in ENDINGS.items():
        if name in kinds:
            places, heights = zip(*kinds[name], strict=True)
            axes.scatter(
                places,
                heights,
                s=size,
                c=colour,
                marker=marker,
                edgecolors="white",
                linewidths=0.5,
                zorder=3,
                label=name,
            )
    _threshold_lines(axes.axhline, below=ceiling)
    axes.grid(visible=False, axis="x")
    axes.set(xlim=(-0.8, len(columns) - 0.2), ylim=(0, ceiling))
    axes.set_xticks(range(len(columns)), [name for (name, _), _ in columns], rotation=90, fontsize=7)
    axes.set(xlabel="labs, hardest first", ylabel="final distance (cm)", title="Every episode, lab by lab")
    _legend_below(axes)


def success_per_factor(axes: Axes, report: Report) -> None:
    """Success at 5 cm with one factor out of its training range at a time, with Wilson's intervals."""
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
    """Decision times of the headline method; the slowest 1 % is collected at the right end."""
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
    busy = f" ({BUSY})" if BUSY in report.protocol.hardware else ""
    axes.set(xlim=(0, end), xlabel="time per decision (ms)", ylabel="decisions", title=f"Time to think{busy}")


def _padded(curves: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Curves of different lengths as rows, padded with their last value; invalid values become infinite."""
    longest = max(len(curve) for curve in curves)
    rows = np.array([[*curve, *[curve[-1]] * (longest - len(curve))] for curve in curves], dtype=np.float64)
    return np.where(np.isfinite(rows), rows, np.inf)


def _look(index: int) -> dict[str, Any]:
    """Colour and dash style of the index-th baseline."""
    return {"color": BASELINE_COLOURS[index % len(BASELINE_COLOURS)], "ls": DASHES[index % len(DASHES)]}


def _ending(distance_cm: float) -> str:
    """The category of a final distance, one of `ENDINGS`."""
    within, beyond, diverged = ENDINGS
    return diverged if not math.isfinite(distance_cm) else within if distance_cm <= MARKS_CM[1] else beyond


def _threshold_lines(line: Callable[..., Any], *, below: float = math.inf) -> None:
    for mark in MARKS_CM:
        if mark < below:
            line(mark, color=FAINT, lw=1.0, ls=(0, (3, 3)), zorder=1)


def _legend_below(axes: Axes) -> None:
    """A legend under the figure, where it covers no curve."""
    handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=len(labels), fontsize=8.5)


@dataclass(frozen=True)
class Curve:
    """A curve labelled at its right end."""

    name: str
    x: float
    y: NDArray[np.float64]
    colour: str


def _draw_curves(
    axes: Axes, baselines: Mapping[str, NDArray[np.float64]], method: str, own: NDArray[np.float64], *, step: float
) -> list[Curve]:
    """Baselines as thin lines with the method in bold on top."""
    curves = []
    for index, (name, values) in enumerate(baselines.items()):
        axes.plot(step * np.arange(len(values)), values, lw=1.3, **_look(index))
        curves.append(Curve(name, step * (len(values) - 1), values, _look(index)["color"]))
    axes.plot(step * np.arange(len(own)), own, color=BLUE, lw=2.6)
    return [*curves, Curve(method, step * (len(own) - 1), own, BLUE)]


def _label_ends(axes: Axes, curves: Sequence[Curve]) -> None:
    """Label each curve at its right end, shifted where labels would overlap; coinciding curves are marked."""
    low, high = axes.get_ylim()
    apart = (high - low) * 12.5 / (72 * axes.figure.bbox.height / axes.figure.dpi * 0.72)  # points per axis unit
    placed = low - apart
    order = sorted(curves, key=lambda curve: min(float(curve.y[-1]), high))
    highest = [high - apart * (len(order) - 1 - rank) for rank in range(len(order))]
    for curve, room in zip(order, highest, strict=True):
        end = min(float(curve.y[-1]), high)
        placed = max(placed + apart, min(end, room))
        shared = any(_coincide(curve, other, high - low) for other in curves if other is not curve)
        axes.annotate(
            f"{curve.name} (same curve)" if shared else curve.name, (curve.x, end), xytext=(1.02, placed),
            textcoords=("axes fraction", "data"), va="center", color=curve.colour, annotation_clip=False,
            fontweight="bold" if curve.colour == BLUE else "normal",
        )  # fmt: skip


def _coincide(one: Curve, other: Curve, span: float) -> bool:
    """Whether two curves differ nowhere by more than a hundredth of the axis."""
    if len(one.y) != len(other.y):
        return False
    both = np.isfinite(one.y) & np.isfinite(other.y)
    gap = np.abs(np.where(both, one.y, 0.0) - np.where(both, other.y, 0.0))
    return bool((np.isfinite(one.y) == np.isfinite(other.y)).all() and gap.max() <= 0.01 * span)
