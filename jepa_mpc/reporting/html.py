"""HTML building blocks: sections, tables, embedded images, formatted numbers."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from jepa_mpc.files import write_text
from jepa_mpc.reporting.page_style import CSS, SCRIPT
from jepa_mpc.reporting.record import plain

POSTER = ".png"
"""Suffix of a video's poster image."""


def section(title: str, body: str) -> str:
    """A section of a page with its heading; empty if the body is empty."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>\n" if body else ""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, own: bool = False) -> str:
    """A table; on narrow screens each row becomes a list, so each cell carries its column name.

    Args:
        heads: Names of the columns.
        rows: Cells as HTML.
        own: Whether the first row is the report's own.
    """
    lines = []
    for index, row in enumerate(rows):
        cells = "".join(
            f'<td data-of="{escape(head, quote=True)}">{cell}</td>' for head, cell in zip(heads, row, strict=True)
        )
        lines.append(f'<tr class="own">{cells}</tr>' if own and index == 0 else f"<tr>{cells}</tr>")
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def image(path: Path, text: str) -> str:
    """A PNG image, embedded."""
    data = base64.b64encode(Path(path).read_bytes()).decode()
    return f'<img alt="{escape(text, quote=True)}" src="data:image/png;base64,{data}">'


def poster(video: str, folder: Path) -> str:
    """Poster attribute of a video: the image of the same name beside it, if there is one."""
    picture = Path(video).with_suffix(POSTER)
    return f' poster="{escape(quote(picture.as_posix()), quote=True)}"' if (folder / picture).is_file() else ""


def percent(share: float) -> str:
    """A fraction in percent, with one decimal."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def interval(bounds: Sequence[float]) -> str:
    """Bounds of a fraction, in percent."""
    return f"{100 * bounds[0]:.1f} – {100 * bounds[1]:.1f}"


def p_value(value: float) -> str:
    """A p-value in conventional format."""
    return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def yes(fact: bool) -> str:
    """Yes in green or no in red."""
    return '<span class="good">yes</span>' if fact else '<span class="bad">no</span>'


def words(value: object) -> str:
    """A setting as text: lists and mappings on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(words(item) for item in value)
    return value if isinstance(value, str) else json.dumps(plain(value), default=str)


def write_html(path: Path | str, title: str, parts: Sequence[str]) -> None:
    """Write a self-contained page, except for the videos beside it.

    Raises:
        OSError: If it cannot be written.
    """
    write_text(
        path,
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>"
        f"<style>{CSS}</style></head><body><main>\n{''.join(parts)}</main><script>{SCRIPT}</script></body></html>\n",
    )
