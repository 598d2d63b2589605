"""The figure of the sensors: curves over the share of the labels, or bars where there is one share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from jepa_mpc.experiments.evaluation.encoders.encoder_cells import TRAINED, TWIN
from jepa_mpc.experiments.evaluation.sensors.sensor_jobs import SENSORS
from jepa_mpc.experiments.evaluation.sensors.sensor_table import FINE, PLAIN, SCRATCH, TITLES, Method
from jepa_mpc.reporting.figures import BLUE, FAINT, GREEN, INK, RED, STYLE
from jepa_mpc.reporting.saving import save_figure

SHOWN: dict[Method, tuple[str, str]] = {
    PLAIN: (INK, ":"),
    (TWIN, "attentive"): (FAINT, "--"),
    (TRAINED, "attentive"): (BLUE, "--"),
    SCRATCH: (RED, "-"),
    FINE: (GREEN, "-"),
}
"""Method -> colour and dashes."""

Curve = Mapping[float, Sequence[float]]


def draw(lines: Sequence[Mapping[str, Any]], systems: Sequence[str], sensor: str, path: Path) -> None:
    """A row for each system and a panel for each job; bands and lines on bars are spreads over the seeds.

    Args:
        lines: Scores over the seeds.
        systems: In the order of the rows.
        sensor: Whose jobs.
        path: Where the figure goes.
    """
    jobs = SENSORS[sensor].jobs
    with rc_context(STYLE):
        size = (1.0 + 3.1 * len(jobs), 0.8 + 3.0 * len(systems))
        figure = Figure(figsize=size, layout="constrained")
        for row, system in zip(figure.subplots(len(systems), len(jobs), squeeze=False), systems, strict=True):
            for axes, (name, job) in zip(row, jobs.items(), strict=True):
                curves = {method: _curve(lines, system, name, method) for method in SHOWN}
                (_bars if max(map(len, curves.values())) < 2 else _curves)(axes, curves)
                title = f"{system}: {name}" if len(systems) > 1 else name
                axes.set(title=title, ylabel=f"{job.unit}, {'higher' if job.best else 'lower'} is better")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", frameon=False, ncols=3, fontsize=8)
        save_figure(figure, path, dpi=110)


def _curve(lines: Sequence[Mapping[str, Any]], system: str, job: str, method: Method) -> Curve:
    return {
        line["share"]: line["score"]
        for line in lines
        if (line["encoder"], line["probe"]) == method and line["job"] == job and line["system"] in (system, "")
        if line["score"]
    }


def _curves(axes: Axes, curves: Mapping[Method, Curve]) -> None:
    for method, curve in curves.items():
        if curve:
            colour, dashes = SHOWN[method]
            shares = np.array(sorted(curve))
            middle, spread = np.array([curve[share][:2] for share in shares]).T
            axes.plot(100 * shares, middle, dashes, color=colour, label=TITLES[method], marker="o", markersize=3)
            axes.fill_between(100 * shares, middle - spread, middle + spread, color=colour, alpha=0.15, linewidth=0)
    ticks = sorted({100 * share for curve in curves.values() for share in curve})
    axes.set(xscale="log", yscale="log", xlabel="share of the labels, %")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))  # a logarithmic axis has too few powers of ten
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()


def _bars(axes: Axes, curves: Mapping[Method, Curve]) -> None:
    lowest = []
    for place, (method, curve) in enumerate(curves.items()):
        for middle, spread, _ in curve.values():
            axes.bar(place, middle, 0.75, yerr=spread, color=SHOWN[method][0], label=TITLES[method], capsize=2)
            lowest.append(middle - spread)
    axes.set_xticks([])
    if lowest and 0.4 < min(lowest) <= max(lowest) <= 1:  # rates: the lower part of the bars says nothing
        axes.set_ylim(0.4, 1.0)
