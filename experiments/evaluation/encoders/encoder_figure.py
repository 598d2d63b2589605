"""The figure of the comparison: errors of the probes, and of the predictors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jepa_mpc.experiments.evaluation.encoders.encoder_cells import PIXELS, SUPERVISED, TRAINED, TWIN
from jepa_mpc.experiments.evaluation.encoders.encoder_table import TITLES, Outcomes, over_seeds
from jepa_mpc.reporting.figures import BLUE, GREEN, STYLE
from jepa_mpc.reporting.saving import save_figure

COLOURS = {PIXELS: "#DEDBD2", TWIN: "#A8A59C", TRAINED: BLUE, SUPERVISED: GREEN}
WIDTH = 0.2

Bars = Mapping[str, Sequence[Sequence[float] | None]]


def draw(lines: Sequence[Mapping[str, Any]], outcomes: Outcomes, systems: Sequence[str], path: Path) -> None:
    """A panel for each place and probe, and one for the predictors; lines on the bars are spreads over the seeds.

    Args:
        lines: The summary.
        outcomes: What came of the cells.
        systems: In the order of the bars.
        path: Where the figure goes.
    """
    known = {(line["place"], line["probe"], line["system"], line["encoder"]): line["mean_cm"] for line in lines}
    kinds = list(dict.fromkeys((line["place"], line["probe"]) for line in lines if line["probe"] != SUPERVISED))
    panels: dict[tuple[str, str], Bars] = {}
    for place, probe in kinds:
        panels[f"{place}, {probe} probe", "mean error in labs kept out, cm"] = {
            name: [
                known.get((place, probe if name != SUPERVISED else name, one, name)) for one in _owners(name, systems)
            ]
            for name in COLOURS
        }
    ratios = {
        name: [over_seeds(outcomes, "predictor", system, name, "one_step") for system in systems]
        for name in (TWIN, TRAINED)
    }
    if any(map(any, ratios.values())):
        panels["predictor on frozen features", "error of one step / standing still"] = ratios
    if not panels:
        return
    with rc_context(STYLE):
        figure = Figure(figsize=(max(7.0, 2 + 1.1 * len(systems)), 0.6 + 2.7 * len(panels)), layout="constrained")
        for axes, ((title, label), bars) in zip(
            figure.subplots(len(panels), squeeze=False).flat, panels.items(), strict=True
        ):
            _draw_bars(axes, bars)
            axes.set(title=title, ylabel=label, ylim=(0, None))
            axes.set_xticks(range(len(systems)), systems)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", frameon=False, ncols=len(COLOURS), fontsize=8)
        save_figure(figure, path, dpi=130)


def _owners(encoder: str, systems: Sequence[str]) -> Sequence[str]:
    return [""] * len(systems) if encoder == PIXELS else systems


def _draw_bars(axes: Axes, bars: Bars) -> None:
    names = [name for name in COLOURS if any(bars.get(name, ()))]
    for place, name in enumerate(names):
        at = np.arange(len(bars[name])) + WIDTH * (place - (len(names) - 1) / 2)
        heights, spreads = np.array([(one or (np.nan, 0.0))[:2] for one in bars[name]], dtype=float).T
        axes.bar(at, heights, 0.9 * WIDTH, yerr=spreads, color=COLOURS[name], label=TITLES[name], capsize=2)
