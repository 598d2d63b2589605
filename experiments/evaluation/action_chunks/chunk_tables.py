"""Table and plot of a comparison of chunk policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from jepa_mpc.reporting.figures import BLUE, RED, STYLE
from jepa_mpc.reporting.saving import markdown_table, save_figure

REACHED = ("method", "runs", "within 5 cm (95 %)", "each training", "within 2 cm", "median end", "time")
COLOURS = {"ACT-JEPA": BLUE, "behaviour cloning": RED}


def markdown(trained: Sequence[Mapping[str, Any]], reached: Mapping[str, Mapping[str, Any]]) -> str:
    """Two tables: the chunk errors in held-out labs, and how often the goal was reached."""
    keys = [key for key in trained[0] if key.startswith("end_cm") and not key.endswith("_95")]
    head = ["system", "episodes", "seed", *(f"missed within {key.rsplit('_', 1)[1]} steps (95 %)" for key in keys)]
    lines = []
    for row in trained:
        missed = [f"{row[key]:.2f} cm ({_span(row[f'{key}_95'])})" for key in keys]
        lines.append([row["system"], row["episodes"], row["seed"], *missed, f"{row['cpu_s']:.0f}"])
    played = []
    for name, row in reached.items():
        low, high = row["wilson_95"]
        end, ms = row["median_final_distance_m"], row["ms_per_step_p50"]
        rate = f"{row['success_5cm']:.0%} ({low:.0%} - {high:.0%})"
        far = "-" if end is None else f"{100 * end:.2f} cm"
        took = "-" if ms is None else f"{ms:.0f} ms"
        each = ", ".join(f"{training['success_5cm']:.0%}" for training in row["trainings"].values())
        played.append([name, row["episodes"], rate, each, f"{row['success_2cm']:.0%}", far, took])
    return markdown_table([*head, "CPU s"], lines) + "\n" + markdown_table(REACHED, played)


def draw(trained: Sequence[Mapping[str, Any]], reached: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Left: error of a whole chunk over the number of training episodes. Right: final distances of the episodes."""
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
        last = [key for key in trained[0] if key.startswith("end_cm") and not key.endswith("_95")][-1]
        for system in dict.fromkeys(row["system"] for row in trained):
            mine = [row for row in trained if row["system"] == system]
            counts = sorted({row["episodes"] for row in mine})
            means = [np.mean([row[last] for row in mine if row["episodes"] == count]) for count in counts]
            colour = COLOURS.get(system, "black")
            left.plot(counts, means, color=colour, label=system)
            left.scatter([row["episodes"] for row in mine], [row[last] for row in mine], color=colour, s=14)
        left.set(title="What a chunk misses", xlabel="episodes learned from", ylabel="mean error [cm]", ylim=(0, None))
        left.legend(frameon=False)
        names = list(reached)[::-1]
        ends = [100 * float(reached[name]["median_final_distance_m"] or np.nan) for name in names]
        tints = [next((tint for system, tint in COLOURS.items() if system in name), "#8A8F98") for name in names]
        right.barh(names, ends, color=tints, height=0.6)
        right.set(title="Where reaching ends", xlabel="median distance at the end [cm]")
        save_figure(figure, path, dpi=130)


def _span(interval: Sequence[float]) -> str:
    return f"{interval[0]:.2f} - {interval[1]:.2f}"
