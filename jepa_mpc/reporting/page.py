"""A self-contained page that shows a report; it needs only the videos beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jepa_mpc.reporting.html import image, interval, p_value, percent, poster, section, table, words, write_html, yes
from jepa_mpc.reporting.record import BUSY, EpisodeRecord, Report, split_name

CAPTION = (
    '<p class="note">Dashed lines: 2 and 5 cm. A shaded band belongs to the bold curve; “same curve” marks methods '
    "whose curves lie on each other.</p>"
)
LABS_OF = {
    "in": "labs drawn from the training ranges",
    "look": "labs with colours, textures, lights and clutter that no training log contained",
    "all": "labs with every factor outside the training ranges",
}
OPEN_ROWS = 20


def write_page(
    report: Report, path: Path | str, *, figures: Mapping[str, Path] | None = None, sheet: Path | None = None
) -> None:
    """Write `report.html`.

    Images are embedded; videos are linked by each episode's `video`, which is relative to the page.

    Args:
        report: The report.
        path: Destination of the page.
        figures: PNG files by name, as `draw_figures` returns them.
        sheet: PNG file of the contact sheet, or None.

    Raises:
        OSError: If an image cannot be read or the page cannot be written.
    """
    parts = [
        _headline(report),
        _methods(report),
        section("Figures", _figures(figures or {})),
        _factors(report),
        section("How every lab ended", "" if sheet is None else f'<div class="sheet">{image(sheet, "labs")}</div>'),
        _films(report, Path(path).parent),
        _protocol(report),
        _episodes(report),
    ]
    write_html(path, f"{percent(report.summary['success_5cm'])} within 5 cm: reaching image goals", parts)


def _headline(report: Report) -> str:
    row, protocol = report.summary, report.protocol
    solved = round(row["success_5cm"] * row["episodes"])
    low, high = row["interval_95"]
    busy = f"; the {BUSY}" if BUSY in protocol.hardware else ""
    labs = LABS_OF.get(protocol.split, f"labs with {protocol.split.replace('_', ' ')} outside the training range")
    cards = [
        (percent(row["success_5cm"]), f"end within 5 cm; 95 % interval {100 * low:.1f} to {100 * high:.1f} %"),
        (_cm(row["median_final_distance_m"]), "median final distance to the goal"),
        (percent(row["held_success_5cm"]), "stay within 5 cm for the last three steps"),
        (_ms(row["ms_per_step_p50"]), f"median time per decision; p95 {_ms(row['ms_per_step_p95'])}{busy}"),
    ]
    boxes = "".join(f'<div class="card"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in cards)
    return (
        f"<h1>The arm reached {solved} of {row['episodes']} image goals</h1>"
        f'<p class="lead">{escape(protocol.method)}, in {row["labs"]} {escape(labs)}. '
        f"At most {protocol.budget_steps} actions each, judged by the final pose.</p>"
        f'<div class="cards">{boxes}</div>'
    )


def _methods(report: Report) -> str:
    heads = ["method", "episodes within 5 cm", "Wilson 95 %", "over labs 95 %", "2 cm", "stays", "median (IQR), cm",
             "ms p50", "headline ahead by", "p"]  # fmt: skip
    rows = [_method_row(report.protocol.method, report.summary, None)]
    for name, row in report.baselines.items():
        rows.append(_method_row(name, row, report.comparisons.get(name)))
    note = (
        "Bars: success with Wilson's interval. “Over labs”: bootstrap over labs, Wilson's where all end alike. "
        "“Headline ahead by”: its success minus this method's on the same episodes, in points, with its interval over "
        "labs; p: McNemar's exact test, Holm-adjusted over rows."
    )
    return section("Against other methods", table(heads, rows, own=True) + f'<p class="note">{note}</p>')


def _method_row(name: str, row: Mapping[str, Any], against: Mapping[str, Any] | None) -> list[str]:
    low, high = row["iqr"]
    return [
        escape(name),
        _bar(row),
        interval(row["wilson_95"]),
        interval(row["interval_95"]),
        percent(row["success_2cm"]),
        percent(row["held_success_5cm"]),
        f"{_cm(row['median_final_distance_m'], unit='')} ({_cm(low, unit='')} – {_cm(high, unit='')})",
        _ms(row["ms_per_step_p50"], unit=""),
        "" if against is None else f"{100 * against['difference']:+.1f} ({interval(against['interval_95'])})",
        "" if against is None else p_value(against["mcnemar_p"]),
    ]


def _factors(report: Report) -> str:
    if not report.factors:
        return ""
    heads = ["factor out of range", "episodes within 5 cm", "Wilson 95 %", "2 cm", "median", "episodes", "labs"]
    rows: list[list[str]] = []
    for name, row in sorted(report.factors.items(), key=lambda item: float(item[1]["success_5cm"])):
        cells = [escape(split_name(name)), _bar(row), interval(row["wilson_95"]), percent(row["success_2cm"]),
                 _cm(row["median_final_distance_m"]), str(row["episodes"]), str(row["labs"])]  # fmt: skip
        rows.append(cells)
    return section("One factor at a time", table(heads, rows))


def _figures(figures: Mapping[str, Path]) -> str:
    images = "".join(image(path, name.replace("_", " ")) for name, path in figures.items())
    return f'<div class="figures">{images}</div>{CAPTION}' if images else ""


def _films(report: Report, folder: Path) -> str:
    films: dict[str, EpisodeRecord] = {}
    for episode in _worst_first(report.of(report.protocol.method)):
        if episode.video is not None:
            films.setdefault(episode.video, episode)
    cells = "".join(
        f'<figure><video src="{escape(quote(video), quote=True)}"{poster(video, folder)} preload="none" '
        f"muted loop controls playsinline>"
        f"</video><figcaption><span>{escape(episode.lab)}</span>{_distance(episode)}</figcaption></figure>"
        for video, episode in films.items()
    )
    return section("Videos, worst first", f'<div class="films">{cells}</div>' if cells else "")


def _protocol(report: Report) -> str:
    names = {"thresholds_m": "success thresholds (m)", "lab_list_hash": "lab list", "checkpoint_hash": "checkpoint"}
    lines = []
    for key, value in vars(report.protocol).items():
        if value not in ("", (), {}):
            text = escape(value if isinstance(value, str) else words(value))
            code = f"<code>{text}</code>" if key in ("command", "commit", "lab_list_hash", "checkpoint_hash") else text
            lines.append(f"<dt>{escape(names.get(key, key.replace('_', ' ')))}</dt><dd>{code}</dd>")
    return section("Protocol, fixed beforehand", f"<dl>{''.join(lines)}</dl>")


def _episodes(report: Report) -> str:
    heads = ["lab", "seed", "start", "end", "closest", "2 cm", "5 cm", "stays", "goal (x, y, z) m", "ms p50"]
    rows = [_episode_row(episode) for episode in _worst_first(report.of(report.protocol.method))]
    first, rest = table(heads, rows[:OPEN_ROWS]), ""
    if len(rows) > OPEN_ROWS:
        rest = f"<details><summary>{len(rows) - OPEN_ROWS} more</summary>{table(heads, rows[OPEN_ROWS:])}</details>"
    return section("Every episode, worst first", first + rest)


def _episode_row(episode: EpisodeRecord) -> list[str]:
    times = sorted(time for time in episode.ms_per_step if math.isfinite(time))
    lab = escape(episode.lab)
    if episode.video is not None:
        lab = f'<a href="{escape(quote(episode.video), quote=True)}">{lab}</a>'
    closest = min((distance for distance in episode.distances_m if math.isfinite(distance)), default=math.inf)
    return [
        lab,
        str(episode.seed),
        _cm(episode.distances_m[0]),
        _distance(episode),
        _cm(closest),
        yes(episode.success_2cm),
        yes(episode.success_5cm),
        yes(episode.held_success_5cm),
        ", ".join(f"{value:.2f}" for value in episode.goal_m),
        _ms(times[len(times) // 2] if times else None, unit=""),
    ]


def _worst_first(episodes: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
    return sorted(episodes, key=lambda episode: -episode.final_distance_m)


def _bar(row: Mapping[str, Any]) -> str:
    rate, (low, high) = 100 * row["success_5cm"], (100 * bound for bound in row["wilson_95"])
    whisker = f'<u style="left:{low:.1f}%;width:{high - low:.1f}%"></u>'
    return f'<span class="bar"><i style="width:{rate:.1f}%"></i>{whisker}</span><b>{percent(row["success_5cm"])}</b>'


def _distance(episode: EpisodeRecord) -> str:
    text = _cm(episode.final_distance_m) if math.isfinite(episode.final_distance_m) else "diverged"
    return f'<span class="{"good" if episode.success_5cm else "bad"}">{text}</span>'


def _cm(distance_m: float | None, *, unit: str = " cm") -> str:
    return "–" if distance_m is None or not math.isfinite(distance_m) else f"{100 * distance_m:.1f}{unit}"


def _ms(time: float | None, *, unit: str = " ms") -> str:
    return "–" if time is None else f"{time:.0f}{unit}" if time >= 10 else f"{time:.1f}{unit}"
