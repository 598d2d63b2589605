"""A self-contained page of a benchmark: tables, figures, settings and the machine."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from jepa_mpc.experiments.evaluation.planners.advice import across, advice
from jepa_mpc.experiments.evaluation.planners.cells import LEARNED
from jepa_mpc.experiments.evaluation.planners.planner_figures import CAPTIONS
from jepa_mpc.experiments.evaluation.planners.planner_table import Row
from jepa_mpc.files import write_text
from jepa_mpc.reporting.page_style import CSS
from jepa_mpc.reporting.saving import markdown_table

Cells = Mapping[str, Callable[[Row], str]]


def number(value: float | None, *, digits: int = 3) -> str:
    """A number with so many significant digits, or a dash."""
    return "–" if value is None else f"{value:.{digits}g}"


def budget_text(row: Row) -> str:
    """The budget of a planner, in words."""
    return "–" if row["baseline"] else "own size" if row["budget"] is None else f"{row['budget']:,}".replace(",", " ")


def success_text(row: Row) -> str:
    """Success and its interval over starts, in percent."""
    return f"{100 * row['success']:.0f} % ({100 * row['success_low']:.0f} – {100 * row['success_high']:.0f})"


def duration(seconds: float | None) -> str:
    """A time in milliseconds or seconds, with three digits and no exponent; a dash for None."""
    if seconds is None:
        return "–"
    value, unit = (seconds, "s") if seconds >= 1 else (1e3 * seconds, "ms")
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def regret_text(row: Row) -> str:
    """Mean cost above the best known, and its interval over starts."""
    if row["regret"] is None:
        return f"{row['broken']} broke down"
    return f"{row['regret']:.4f} ({row['regret_low']:.4f} – {row['regret_high']:.4f})"


SUCCESS = "success (95 % over starts)"
COLUMNS: Cells = {
    "planner": lambda row: row["planner"],
    "budget": budget_text,
    "runs": lambda row: str(row["runs"]),
    SUCCESS: success_text,
    "believed by the world model (its own unit)": lambda row: cost_text(row["believed"]),
    "true cost": lambda row: cost_text(row["cost"]),
    "cost above best known (95 % over starts)": regret_text,
    "evaluations": lambda row: "–" if row["evaluations"] is None else f"{row['evaluations']:.0f}",
    "busy per plan": lambda row: duration(row["cpu_s"]),
    "p50 per plan": lambda row: duration(_seconds(row["p50_ms"])),
    "p99 per plan": lambda row: duration(_seconds(row["p99_ms"])),
}
AGAINST: Cells = {
    "cost / reference": lambda row: number(row.get("cost_to_reference")),
    "evaluations / reference": lambda row: number(row.get("evaluations_to_reference")),
    "difference (95 % over starts)": lambda row: (
        f"{row['difference']:+.4f} ({row['difference_low']:+.4f} – {row['difference_high']:+.4f})"
        if row.get("difference") is not None
        else "–"
    ),
}
ACROSS: Cells = {
    "planner": lambda row: row["planner"],
    "budget": budget_text,
    "tasks": lambda row: str(row["tasks"]),
    "mean rank at its budget": lambda row: f"{row['rank']:.1f} of {row['rivals']}",
    "success in closed loop": lambda row: "–" if row["success"] is None else f"{100 * row['success']:.0f} %",
    "regret left (of doing nothing's)": lambda row: (
        "–" if row["regret_share"] is None else f"{100 * row['regret_share']:.1f} %"
    ),
    "busy per plan": lambda row: duration(_seconds(row["busy_ms"])),
}


def columns_for(rows: Sequence[Row]) -> Cells:
    """The columns of a table: predicted cost where it is not the true one, p99 and comparison where available."""
    known = {
        "believed by the world model (its own unit)": any(row["dynamics"] == LEARNED for row in rows),
        "p99 per plan": any(row["p99_ms"] is not None for row in rows),
    }
    columns = {name: cell for name, cell in COLUMNS.items() if known.get(name, True)}
    return {**columns, **AGAINST} if any(row.get("difference") is not None for row in rows) else columns


def markdown(rows: Sequence[Row], *, note: str = "") -> str:
    """All tables as Markdown, below a note: the summary with its advice, then one table per task."""
    overall = across(rows)
    parts = [f"*{note}.*\n"] if note else []
    if overall:
        parts.append(f"**All tasks together.** {advice(overall)}".rstrip() + f"\n\n{_lines(ACROSS, overall)}")
    parts += [f"**{task}**\n\n{_lines(columns_for(rows), group)}" for task, group in by_task(rows).items()]
    return "\n".join(parts)


def _lines(columns: Cells, rows: Sequence[Row]) -> str:
    return markdown_table(list(columns), [[cell(row) for cell in columns.values()] for row in rows])


def cost_text(value: float | None) -> str:
    """A cost with four decimals, or a dash."""
    return "–" if value is None else f"{value:.4f}"


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def by_task(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each task, the cheapest planner first and baselines at the end."""
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["baseline"], float("inf") if row["cost"] is None else row["cost"])):
        groups.setdefault(row["task"], []).append(row)
    return {task: groups[task] for task in dict.fromkeys(row["task"] for row in rows)}


def write_page(rows: Sequence[Row], facts: Mapping[str, Any], path: Path, *, figures: Mapping[str, Path]) -> None:
    """Write the page; figures are embedded in the file.

    Raises:
        OSError: If a figure cannot be read or the page cannot be written.
    """
    modes = {"open": "one plan per start, executed open-loop", "closed": "episodes with replanning"}
    lead = (
        f"{facts['done']} of {facts['cells']} runs; {modes[rows[0]['mode']]}. Costs are the task's own, of the course"
    )
    parts = [
        f"<h1>Planners on {len(by_task(rows))} tasks</h1>",
        f'<p class="lead bad"><b>{escape(facts["partial"])}.</b></p>' if facts.get("partial") else "",
        f'<p class="lead">{escape(lead)} that was really taken; lower '
        "is better. The best known of a start is the lowest cost of anything on this page that played it.</p>",
        _overall(rows),
        *(_section(task, _table(columns_for(rows), group)) for task, group in by_task(rows).items()),
        _section("Figures", "".join(_figure(path, CAPTIONS[name]) for name, path in figures.items())),
        _section("What was played", _facts(facts)),
    ]
    head = f'<meta charset="utf-8"><title>Planners</title><style>{CSS}</style>'
    write_text(
        path, f'<!doctype html><html lang="en"><head>{head}</head><body><main>{"".join(parts)}</main></body></html>'
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>\n"


def _table(columns: Cells, rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell(row))}</td>' for cell in columns.values())}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _overall(rows: Sequence[Row]) -> str:
    overall = across(rows)
    if not overall:
        return ""
    words = f'<p class="lead">{escape(advice(overall))}</p>'
    return _section("Which planner?", words + _table(ACROSS, overall))


def _figure(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{escape(path.stem.replace("_", " "), quote=True)}" src="data:image/png;base64,{data}">'
    return f'<figure class="full">{image}<figcaption>{escape(caption)}</figcaption></figure>'


def _facts(facts: Mapping[str, Any]) -> str:
    lines = (
        f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(_words(value))}</dd>"
        for name, value in facts.items()
        if value not in ("", [], {}, None)
    )
    return f"<dl>{''.join(lines)}</dl>"


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(_words(item) for item in value)
    return str(value)
