"""The options of a command, read from its YAML file without heavy imports.

Every option has its own line with a comment that explains it. The first line of each file in a group's folder explains
that choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HIDDEN = ("hydra", "defaults")
NOT_CHOSEN = ("override", "_self_")
WIDTH = 110


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option.

    Args:
        name: Name on the command line.
        default: Its value in the file.
        meaning: Its explanation, one sentence.
    """

    name: str
    default: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """An option whose choices are the files of a folder.

    Args:
        name: Name on the command line.
        default: The default file; empty for none.
        meaning: Its explanation, one sentence.
        choices: Names of the files and their explanations.
    """

    name: str
    default: str
    meaning: str
    choices: tuple[tuple[str, str], ...]


def options_of(config: Path) -> tuple[list[Option], list[Group]]:
    """The options of a command and its groups, in the order of the file."""
    lines = config.read_text(encoding="utf-8").splitlines()
    return list(_options(lines)), list(_groups(lines, config.parent))


def help_text(title: str, *, usage: str, options: Sequence[Option], groups: Sequence[Group]) -> str:
    """The text of `--help`."""
    left = [f"{option.name}={option.default}" for option in options]
    column = min(38, max((len(entry) for entry in left), default=0)) + 2
    lines = [title, "", f"usage: {usage} [option=value ...]", "", "Options, with their defaults:"]
    for entry, option in zip(left, options, strict=True):
        lines += _row(entry, option.meaning, column)
    for group in groups:
        default = f" (default {group.default})" if group.default else ""
        lines += ["", *_wrapped(f"{group.name}=NAME{default}: {group.meaning}", 0)]
        width = max((len(name) for name, _ in group.choices), default=0) + 2
        for name, meaning in group.choices:
            lines += _row(name, meaning, width)
        lines.append(f"  Change an entry of the choice with {group.name}.ENTRY=value.")
    return "\n".join(lines)


def _options(lines: Sequence[str]) -> Iterator[Option]:
    top = False
    for number, line in enumerate(lines):
        found = re.match(r"([a-z_]+):\s*(.*)$", line)
        if found is None:
            continue
        name, rest = found[1], found[2]
        top = name not in HIDDEN
        if top:
            value, meaning = _split(rest)
            if not value:
                value = _block(lines[number + 1 :])
            yield Option(name=name, default=value, meaning=meaning)


def _groups(lines: Sequence[str], folder: Path) -> Iterator[Group]:
    for line in _defaults(lines):
        entry, meaning = _split(line)
        found = re.match(r"-?\s*\{?([a-z_]+)(?:@([a-z_.]+))?:\s*([\w.]+)\}?$", entry)
        if found is None or found[1] in NOT_CHOSEN:
            continue
        choices = tuple((path.stem, _first_comment(path)) for path in sorted((folder / found[1]).glob("*.yaml")))
        default = "" if found[3] == "null" else found[3]
        name = found[1] if found[2] is None else f"{found[1]}@{found[2]}"
        yield Group(name=name, default=default, meaning=meaning or f"a file of configs/{found[1]}", choices=choices)


def _defaults(lines: Sequence[str]) -> list[str]:
    """The entries of the defaults list, written on one or several lines."""
    for number, line in enumerate(lines):
        if line.startswith("defaults:"):
            inline = re.match(r"defaults:\s*\[(.*)\]", line)
            if inline:
                return [part.strip() for part in re.split(r",\s*(?![^{]*\})", inline[1])]
            rest = lines[number + 1 :]
            stop = next((i for i, text in enumerate(rest) if text and not text.startswith((" ", "-", "#"))), len(rest))
            return [text.strip() for text in rest[:stop] if text.strip().startswith("-")]
    return []


def _split(text: str) -> tuple[str, str]:
    """A value and its trailing comment."""
    quoted = re.match(r"((?:[^#\"']|\"[^\"]*\"|'[^']*')*?)\s*(?:#\s*(.*))?$", text)
    assert quoted is not None
    return quoted[1].strip(), (quoted[2] or "").strip()


def _block(lines: Sequence[str]) -> str:
    """A nested value, shortened to one line."""
    inner = [_split(line.strip())[0] for line in _until_dedent(lines)]
    return "" if not inner else inner[0] if len(inner) == 1 else "{" + ", ".join(inner) + "}"


def _until_dedent(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith(" "):
            return
        yield line


def _first_comment(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        for line in file:
            text = line.strip()
            if text.startswith("#") and not text.startswith("# @package"):
                return text.lstrip("# ").rstrip()
            if text and not text.startswith("#"):
                return ""
    return ""


def _row(entry: str, meaning: str, column: int) -> list[str]:
    first, *rest = _wrapped(meaning, column + 2) or [""]
    gap = column - len(entry)
    head = f"  {entry}{' ' * max(1, gap)}"
    if gap < 1:
        return [head.rstrip(), *([f"{' ' * (column + 2)}{first}"] if first else []), *_indented(rest, column)]
    return [(head + first).rstrip(), *_indented(rest, column)]


def _indented(lines: Sequence[str], column: int) -> list[str]:
    """Continuation lines, indented to the column of the explanations."""
    return [" " * (column + 2) + line for line in lines]


def _wrapped(text: str, indent: int) -> list[str]:
    lines: list[str] = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > WIDTH - indent:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [line for line in lines if line]
