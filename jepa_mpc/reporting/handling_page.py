"""The page of `zero_shot_pick.py`: success rates of every agent with intervals, videos, and gripper statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from matplotlib import rc_context
from matplotlib.figure import Figure

from jepa_mpc.reporting.figures import BLUE, INK, STYLE
from jepa_mpc.reporting.html import image, interval, p_value, percent, poster, section, table, words, write_html, yes
from jepa_mpc.reporting.saving import save_figure

RATES = {"grasp": "grasp", "reach_with_object": "reach with object", "place": "place"}
GRIP = ("touched", "closed", "lifted", "kept", "lost")
Row = Mapping[str, Any]


def write_handling_page(
    report: Row, episodes: Sequence[Row], folder: Path, *, method: str, films: Mapping[tuple[int, int], str]
) -> Path:
    """Write `report.html` and `figures/rates.png`.

    Args:
        report: Content of `report.json`: protocol, summary, baselines and leads.
        episodes: Outcomes of the method's own episodes.
        folder: The run folder.
        method: The method that the report is about.
        films: Path of the video relative to the folder, by lab and episode index.

    Raises:
        OSError: If the folder cannot be written to.
    """
    rows = {method: report["summary"], **report["baselines"]}
    figure = folder / "figures" / "rates.png"
    draw_rates(rows, figure, own=method)
    summary = report["summary"]
    placed = f"{round(summary['place'] * summary['episodes'])} of {summary['episodes']} objects placed"
    parts = [
        _headline(report, placed),
        section("Against controls on the same episodes", _agents(rows, report["leads"], method)),
        section("Rates with Wilson's 95 % intervals", f'<div class="figures">{image(figure, "rates")}</div>'),
        section("What the gripper did", _grip(rows)),
        section("Videos, worst first", _films(episodes, films, folder)),
        section("Every episode", _episodes(episodes)),
        section("Protocol", _protocol(report["protocol"])),
    ]
    write_html(folder / "report.html", f"{placed}: handling to image goals", parts)
    return folder / "report.html"


def draw_rates(rows: Mapping[str, Row], path: Path, *, own: str) -> None:
    """Success rates of each agent with Wilson's intervals, one panel per rate.

    Raises:
        OSError: If the image cannot be written.
    """
    names = list(rows)[::-1]
    with rc_context(STYLE):
        figure = Figure(figsize=(8.6, 1.4 + 0.3 * len(names)), layout="constrained")
        panels = figure.subplots(1, len(RATES), sharey=True)
        for axes, (rate, title) in zip(panels, RATES.items(), strict=True):
            for place, name in enumerate(names):
                colour = BLUE if name == own else INK
                low, high = (100 * bound for bound in rows[name]["wilson_95"][rate])
                axes.plot([low, high], [place, place], color=colour, lw=1.8)
                axes.plot(100 * rows[name][rate], place, "o", color=colour, ms=6.5, mec="white")
            axes.grid(visible=False, axis="y")
            axes.set(xlim=(-3, 103), xticks=range(0, 101, 25), xlabel="episodes (%)", title=title)
            axes.tick_params(axis="y", length=0)
        panels[0].set_yticks(range(len(names)), names)
        save_figure(figure, path)


def _headline(report: Row, placed: str) -> str:
    row, protocol = report["summary"], report["protocol"]["settings"]
    cards = [
        (percent(row[rate]), f"{name}; 95 % interval {interval(row['wilson_95'][rate])} %")
        for rate, name in RATES.items()
    ]
    cards.append((f"{row['cpu_s']:.1f} s", "CPU time per episode, simulation and images included"))
    boxes = "".join(f'<div class="card"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in cards)
    lead = (
        f"Protocol “{protocol['protocol']}”, objects “{protocol['object']}”, labs of split “{protocol['split']}”, "
        f"level “{protocol['level']}”."
    )
    return f'<h1>{escape(placed)}</h1><p class="lead">{escape(lead)}</p><div class="cards">{boxes}</div>'


def _agents(rows: Mapping[str, Row], leads: Sequence[Row], method: str) -> str:
    heads = ["agent", "episodes", *(f"{name} (95 %)" for name in RATES.values()), "ahead in places", "p", "CPU s"]
    ahead = {lead["over"]: lead for lead in leads if lead["rate"] == "place"}
    lines = []
    for name, row in rows.items():
        rates = [f"{percent(row[rate])} ({interval(row['wilson_95'][rate])})" for rate in RATES]
        lead = ahead.get(name)
        won = ["", ""] if lead is None else [f"{lead['points']:+.0f}", p_value(lead["p"])]
        lines.append([escape(name), str(row["episodes"]), *rates, *won, f"{row['cpu_s']:.1f}"])
    note = (
        f"“Ahead in places”: success of {escape(method)} minus that of this agent on the same episodes, in points; "
        "p: McNemar's exact test."
    )
    return table(heads, lines, own=True) + f'<p class="note">{note}</p>'


def _grip(rows: Mapping[str, Row]) -> str:
    lines = [[escape(name), *(percent(row["grip"][part]) for part in GRIP)] for name, row in rows.items()]
    return table(["agent", "touched", "closed on it", "lifted 2 cm", "kept", "lost in transit"], lines, own=True)


def _films(episodes: Sequence[Row], films: Mapping[tuple[int, int], str], folder: Path) -> str:
    cells = []
    for episode in sorted(episodes, key=_worst):
        film = films.get((episode["cell"]["lab"], episode["cell"]["episode"]))
        if film is not None and (folder / film).exists():
            cells.append(
                f'<figure><video src="{escape(quote(film), quote=True)}"{poster(film, folder)} preload="none" muted '
                f"loop controls playsinline></video><figcaption><span>{escape(episode['lab'])}, "
                f"{escape(episode['object'])}</span>{yes(episode['place'])}</figcaption></figure>"
            )
    return f'<div class="films">{"".join(cells)}</div>' if cells else ""


def _episodes(episodes: Sequence[Row]) -> str:
    lines = [
        [escape(episode["lab"]), str(episode["cell"]["episode"]), escape(episode["object"]), yes(episode["grasp"]),
         yes(episode["reach"]), yes(episode["place"]), _cm(episode["distance_m"])]
        for episode in sorted(episodes, key=_worst)
    ]  # fmt: skip
    return table(["lab", "episode", "object", "grasp", "reach with object", "place", "object from goal"], lines)


def _protocol(facts: Row) -> str:
    lines = [
        f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(words(value))}</dd>" for name, value in facts.items()
    ]
    return f"<dl>{''.join(lines)}</dl>"


def _worst(episode: Row) -> tuple[bool, bool, bool, float]:
    away = episode["distance_m"]
    return (episode["place"], episode["reach"], episode["grasp"], -(float("inf") if away is None else away))


def _cm(distance_m: float | None) -> str:
    return "broke down" if distance_m is None else f"{100 * distance_m:.1f} cm"
