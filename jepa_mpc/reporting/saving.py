"""Saves figures as files and tables as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jepa_mpc.files import atomic_file


def save_figure(figure: Figure, path: Path | str, *, dpi: int = 150) -> None:
    """Write a figure as PNG atomically; creates missing folders and opens no window.

    Raises:
        OSError: If the path cannot be written.
    """
    with atomic_file(path) as draft:
        FigureCanvasAgg(figure).print_figure(str(draft), dpi=dpi, format="png")


def markdown_table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, one line per row; cells are formatted by `str`."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
