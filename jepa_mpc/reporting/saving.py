"""Figures and tables as files and text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jepa_mpc.files import atomic_file


def save_figure(figure: Figure, path: Path | str, *, dpi: int = 150) -> None:
    """Write a figure as PNG, whole or not at all; missing folders are made, and no window is opened.

    Raises:
        OSError: If the place cannot be written to.
    """
    with atomic_file(path) as draft:
        FigureCanvasAgg(figure).print_figure(str(draft), dpi=dpi, format="png")


def markdown_table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown, one line for each row; cells are what `str` makes of them."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
