"""The figure of bench_loading.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from jepa_mpc.reporting.saving import save_figure

BLUE, GREY = "#0072b2", "#b9bcc2"


def draw_rates(path: Path, ingested: Sequence[dict[str, Any]], clips: Sequence[dict[str, Any]]) -> None:
    """Bars on a logarithmic axis: frames ingested on the left, clips read on the right.

    Args:
        path: The PNG.
        ingested: Rows with `log`, `frames per CPU s` and `bar`.
        clips: Rows with `source`, `frames of a clip` and `clips per CPU s`.
    """
    figure = Figure(figsize=(11, 0.42 * max(len(ingested), len(clips)) + 1.6), layout="tight")
    left, right = figure.subplots(1, 2)
    _bars(left, [row["log"] for row in ingested], [row["frames per CPU s"] for row in ingested], own=len(ingested))
    left.axvline(700, color="black", linewidth=0.8, linestyle=":")
    left.set_xlabel("frames ingested per CPU second (dotted: 700)")
    own = [row["source"].startswith("cache") for row in clips]
    names = [f"{row['source']}, {row['frames of a clip']} frames" for row in clips]
    _bars(right, names, [row["clips per CPU s"] for row in clips], own=sum(own))
    right.set_xlabel("clips read per CPU second, one process")
    save_figure(figure, path, dpi=130)


def _bars(axes: Any, names: Sequence[str], values: Sequence[float], *, own: int) -> None:
    colours = [BLUE if i < own else GREY for i in range(len(names))]
    drawn = axes.barh(range(len(names)), values, color=colours)
    axes.bar_label(drawn, labels=[f"{value:,.0f}".replace(",", " ") for value in values], padding=3, fontsize=9)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * 4)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
