"""Reports of the reaching experiment: records, statistics, figures, one page and a contact sheet."""

from __future__ import annotations

from jepa_mpc.reporting.contact_sheet import Tile, contact_sheet
from jepa_mpc.reporting.record import EpisodeRecord, Protocol, Report
from jepa_mpc.reporting.report_folder import write_folder
from jepa_mpc.reporting.summary import compare, make_report, summarise

__all__ = [
    "EpisodeRecord",
    "Protocol",
    "Report",
    "Tile",
    "compare",
    "contact_sheet",
    "make_report",
    "summarise",
    "write_folder",
]
