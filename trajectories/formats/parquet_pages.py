"""What the pages of a parquet column claim, read off their headers: the footer may say less than will be unpacked.

A column chunk is a row of pages, each with a header in Thrift's compact protocol: pairs of a field's number and type,
then its value. Of these, two numbers count: bytes unpacked and bytes packed.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from jepa_mpc.trajectories.guards import Patience

UNPACKED, PACKED = 2, 3  # fields of a page's header
STOP, TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, SET, STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 12
NUMBERS = (4, 5, 6)
MAX_DEPTH = 8


def unpacked_bytes(path: Path, start: int, length: int) -> int:
    """Bytes that the pages of a column chunk claim to unpack to, all together.

    Args:
        path: The file.
        start: First byte of the chunk.
        length: Bytes of the chunk in the file.

    Raises:
        ValueError: If a header is none.
        BadEpisode: If it takes too long.
    """
    total, patience = 0, Patience(path)
    with path.open("rb") as file:
        file.seek(start)
        while file.tell() < start + length:
            patience.check()
            found = _numbers(file)
            unpacked, packed = found.get(UNPACKED, -1), found.get(PACKED, -1)
            if unpacked < 0 or packed < 0:
                raise ValueError(f"a page of {packed} bytes that unpacks to {unpacked}")
            total += unpacked
            file.seek(packed, 1)
    return total


def _numbers(file: BinaryIO, depth: int = 0) -> dict[int, int]:
    """The whole numbers of a structure by their fields; all else is passed over."""
    if depth > MAX_DEPTH:
        raise ValueError("a header that is nested too deep")
    found: dict[int, int] = {}
    field = 0
    while True:
        head = _byte(file)
        kind = head & 15
        if kind == STOP:
            return found
        field = field + (head >> 4) if head >> 4 else _signed(file)
        if kind in NUMBERS:
            found[field] = _signed(file)
        else:
            _skip(file, kind, depth)


def _skip(file: BinaryIO, kind: int, depth: int) -> None:
    if kind in (TRUE, FALSE):
        return
    if kind in NUMBERS:
        _signed(file)
    elif kind == BYTE:
        _byte(file)
    elif kind == DOUBLE:
        file.seek(8, 1)
    elif kind == BINARY:
        file.seek(_unsigned(file), 1)
    elif kind in (LIST, SET) and depth <= MAX_DEPTH:
        head = _byte(file)
        count, inner = head >> 4, head & 15
        for _ in range(_unsigned(file) if count == 15 else count):
            _byte(file) if inner in (TRUE, FALSE) else _skip(file, inner, depth + 1)
    elif kind == STRUCT:
        _numbers(file, depth + 1)
    else:
        raise ValueError(f"a header with a field of the unknown kind {kind}")


def _byte(file: BinaryIO) -> int:
    found = file.read(1)
    if not found:
        raise ValueError("a header that is cut short")
    return found[0]


def _unsigned(file: BinaryIO) -> int:
    value = shift = 0
    while True:
        byte = _byte(file)
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value
        if shift > 63:
            raise ValueError("a header with an endless number")


def _signed(file: BinaryIO) -> int:
    value = _unsigned(file)
    return (value >> 1) ^ -(value & 1)
