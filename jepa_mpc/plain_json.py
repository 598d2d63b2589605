"""JSON from foreign files: bounded in bytes, depth and memory, with unique keys and valid text."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_BYTES = 64 << 20
MAX_DEPTH = 64
VALUE_BYTES = 64  # least memory of a parsed value in Python
SPARE_BYTES = 192 << 20


def read_json_file(path: str | Path) -> Any:
    """Read the value in a file; only plain files are opened, links are followed.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is not a plain file, cannot be read, is longer than 64 MiB or is not JSON; names the file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe must not block
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    known = os.fstat(handle)
    if not stat.S_ISREG(known.st_mode) or known.st_size > MAX_BYTES:
        os.close(handle)
        raise ValueError(f"{path} is no plain file of at most {MAX_BYTES} bytes")
    with os.fdopen(handle, "rb") as file:
        try:
            return parse_json(file.read(MAX_BYTES))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON ({error})") from error


def parse_json(raw: bytes) -> Any:
    """A JSON value with valid text, limited depth, and a limited number of values for its size.

    Raises:
        ValueError: If it is not.
    """
    if VALUE_BYTES * sum(raw.count(mark) for mark in (b"[", b"{", b",", b":")) > len(raw) + SPARE_BYTES:
        raise ValueError("it holds too many values for a header")
    text = raw.decode("utf-8-sig")
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    for depth, level in enumerate(_levels(value)):
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deep")
        if "\\u" in text:
            "".join(one for one in level if isinstance(one, str)).encode()  # raises on a lone surrogate
    return value


def parse_json_lines(raw: bytes) -> list[Any]:
    """The JSON values of a file with one per line; empty lines are skipped.

    Raises:
        ValueError: If a line is not one JSON value, or there are too many values.
    """
    lines = [line for line in raw.splitlines() if line.strip()]
    values = parse_json(b"[" + b",".join(lines) + b"]")
    if not isinstance(values, list) or len(values) != len(lines):
        raise ValueError("a line holds more or less than one value")
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are unique."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _levels(value: Any) -> Iterator[list[Any]]:
    """The values inside a JSON value, level by level: itself, its members and their keys, those of its members, ..."""
    level = [value]
    while level:
        yield level
        level = [inner for one in level for inner in _inside(one)]


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []
