"""Columns by name, and slices of them: `observation.state[0:7]` is the first seven axes of `observation.state`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

SLICE = re.compile(r"(.+)\[(\d+):(\d+)\]")


def base_name(column: str) -> str:
    """The recorded column that a name refers to."""
    match = SLICE.fullmatch(column)
    return match[1] if match else column


def width(column: str, sizes: Mapping[str, tuple[int, ...]]) -> int:
    """Number of axes of a column, given the step shapes of the recorded ones.

    Raises:
        ValueError: If it is not recorded, not a vector or too narrow; lists the recorded columns.
    """
    name, match = base_name(column), SLICE.fullmatch(column)
    if name not in sizes:
        raise ValueError(f"the log has no field {name!r}; it has {', '.join(sizes)}")
    shape = sizes[name]
    if len(shape) > 1:
        raise ValueError(f"field {name!r} has steps of shape {shape}, expected a vector")
    full = shape[0] if shape else 1
    if match is None:
        return full
    start, stop = int(match[2]), int(match[3])
    if not start < stop <= full:
        raise ValueError(f"{column!r} asks for axes {start}..{stop - 1} of a field with {full}")
    return stop - start


def take(columns: Mapping[str, np.ndarray], column: str) -> np.ndarray:
    """A column, or a slice of one, as `T A`.

    Raises:
        ValueError: If the column is narrower than the slice.
    """
    name, match = base_name(column), SLICE.fullmatch(column)
    rows = columns[column] if column in columns else columns[name]
    rows = rows[:, None] if rows.ndim == 1 else rows
    if match is None or column in columns:
        return rows
    start, stop = int(match[2]), int(match[3])
    if rows.shape[1] < stop:
        raise ValueError(f"{column!r} asks for axes {start}..{stop - 1} of a column with {rows.shape[1]}")
    return rows[:, start:stop]


def joined(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Joins slices that cover a column from its first axis without a gap, such as `pose[0:3]` and `pose[3:6]`."""
    parts: dict[str, list[tuple[int, int, np.ndarray]]] = {}
    for column, rows in columns.items():
        if match := SLICE.fullmatch(column):
            parts.setdefault(match[1], []).append((int(match[2]), int(match[3]), rows))
    found = {}
    for name, pieces in parts.items():
        ordered = sorted(pieces, key=lambda piece: piece[0])
        ends = [0, *(stop for _, stop, _ in ordered)]
        if len(ordered) > 1 and all(start == end for (start, _, _), end in zip(ordered, ends, strict=False)):
            found[name] = np.concatenate([rows for _, _, rows in ordered], axis=1)
    return found
