"""Reports of the reaching experiment: records, statistics, figures, one page and a contact sheet."""

from __future__ import annotations

from experiments.reporting.record import EpisodeRecord, Protocol, Report
from experiments.reporting.summary import compare, make_report, summarise

__all__ = ["EpisodeRecord", "Protocol", "Report", "compare", "make_report", "summarise"]
