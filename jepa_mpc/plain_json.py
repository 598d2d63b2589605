"""JSON that others wrote: bounded in bytes, depth and memory, each name once, and text that is text."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_BYTES = 64 << 20
MAX_DEPTH = 64
VALUE_BYTES = 64  # what Python keeps at least for one value
SPARE_BYTES = 192 << 20


def read_json_file(path: str | Path) -> Any:
    """The value in a file; nothing but a plain file is opened, a link is followed.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is no plain file, cannot be read, is longer than 64 MiB or holds no JSON; names the file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would be waited for else
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
    """A JSON value whose texts are text, of limited depth, and not much heavier than its bytes.

    Raises:
        ValueError: If it is none.
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
            "".join(one for one in level if isinstance(one, str)).encode()  # half a pair of surrogates is no text
    return value


def parse_json_lines(raw: bytes) -> list[Any]:
    """The JSON values of a file that holds one a line.

    Raises:
        ValueError: If a line is none, or they are too many.
    """
    values = parse_json(b"[" + b",".join(line for line in raw.splitlines() if line.strip()) + b"]")
    assert isinstance(values, list)
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are there once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _levels(value: Any) -> Iterator[list[Any]]:
    """The values of a JSON value level by level, keys among them."""
    level = [value]
    while level:
        yield level
        level = [inner for one in level for inner in _inside(one)]


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []
