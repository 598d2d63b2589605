"""Writes report.json, figures, contact sheet and page into the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jepa_mpc.reporting.contact_sheet import Tile, contact_sheet
from jepa_mpc.reporting.figures import draw_figures
from jepa_mpc.reporting.page import write_page
from jepa_mpc.reporting.record import Report
from jepa_mpc.reporting.video import save_picture


def write_folder(report: Report, folder: Path | str, *, tiles: Sequence[Tile] = ()) -> Path:
    """Write report.json, figures/*.png, contact_sheet.png (if there are tiles) and report.html.

    The numbers are written first, so that an error while drawing cannot lose them.

    Returns:
        The path of the page.

    Raises:
        OSError: If the disk is full or the folder cannot be written.
    """
    folder = Path(folder)
    report.to_json(folder / "report.json")
    figures = draw_figures(report, folder / "figures")
    sheet = folder / "contact_sheet.png" if tiles else None
    if sheet is not None:
        save_picture(contact_sheet(tiles), sheet)
    write_page(report, folder / "report.html", figures=figures, sheet=sheet)
    return folder / "report.html"
