"""What the pages of a parquet column declare, read from their headers: the footer may declare less than they unpack to.

A column chunk is a sequence of pages. Each begins with a header in Thrift's compact protocol: a list of fields, each
with its number and type, then its value. Two of the fields count here: the page's size unpacked and packed.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from jepa_mpc.trajectories.guards import Patience

UNPACKED, PACKED = 2, 3  # fields of a page's header
STOP, TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, STRUCT = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12
INTEGERS = (I16, I32, I64)
MAX_DEPTH = 8
MAX_HEADER = 1 << 16  # bytes, not counting texts
MAX_TEXT = (1 << 31) - 1  # bytes: Thrift counts them in 32 bits
NUMBER_BITS = 63


def unpacked_bytes(path: Path, start: int, length: int) -> int:
    """Sum of the unpacked sizes that the pages of a column chunk declare, in bytes.

    Args:
        path: The file.
        start: First byte of the chunk.
        length: Bytes of the chunk in the file.

    Raises:
        ValueError: If a page has no valid header.
        BadEpisode: If reading takes too long.
    """
    total, patience = 0, Patience(path)
    with path.open("rb") as file:
        file.seek(start)
        while file.tell() < start + length:
            patience.check()
            sizes = _Header(file).sizes()
            unpacked, packed = sizes.get(UNPACKED, -1), sizes.get(PACKED, -1)
            if unpacked < 0 or not 0 <= packed <= length:
                raise ValueError(f"a page of {packed} bytes that unpacks to {unpacked}")
            total += unpacked
            file.seek(packed, 1)
    return total


class _Header:
    """A page header at the present position of a file; reading it ends, whatever it declares.

    Each value costs at least one byte of the header, and a header has a limited number of them.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.left = MAX_HEADER

    def sizes(self, depth: int = 0) -> dict[int, int]:
        """The 32-bit integers of a structure by their field numbers; everything else is skipped."""
        if depth > MAX_DEPTH:
            raise ValueError("a header that is nested too deep")
        found: dict[int, int] = {}
        field = 0
        while True:
            head = self._byte()
            kind = head & 15
            if kind == STOP:
                return found
            field = field + (head >> 4) if head >> 4 else self._signed()
            if kind == I32:
                found[field] = self._signed()
            elif kind not in (TRUE, FALSE):  # a structure keeps the value of a truth in its type
                self._skip(kind, depth)

    def _skip(self, kind: int, depth: int) -> None:
        """Pass over one value; in a list, truths have a byte of their own."""
        if kind in (TRUE, FALSE, BYTE):
            self._byte()
        elif kind in INTEGERS:
            self._signed()
        elif kind == DOUBLE:
            for _ in range(8):
                self._byte()
        elif kind == BINARY:
            count = self._unsigned()
            if count > MAX_TEXT:
                raise ValueError(f"a header with a text of {count} bytes")
            self.file.seek(count, 1)
        elif kind in (LIST, SET) and depth <= MAX_DEPTH:
            head = self._byte()
            count, inner = head >> 4, head & 15
            for _ in range(self._unsigned() if count == 15 else count):
                self._skip(inner, depth + 1)
        elif kind == STRUCT:
            self.sizes(depth + 1)
        else:
            raise ValueError(f"a header with a field of the unknown kind {kind}")

    def _byte(self) -> int:
        self.left -= 1
        found = self.file.read(1)
        if not found or self.left < 0:
            raise ValueError("a header that is cut short or too long")
        return found[0]

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > NUMBER_BITS:
                raise ValueError("a header with an endless number")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
