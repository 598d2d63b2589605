"""Compressed chunks of HDF5 datasets: none may unpack to more bytes than the dataset's chunk shape declares.

libhdf5 does not limit the output of a filter: a chunk of 1 MB may unpack to a gigabyte, whatever its dataset declares.
So a chunk that is large enough to exceed `GRACE_BYTES` is first unpacked here piece by piece, and its bytes counted.
"""

from __future__ import annotations

import zlib
from itertools import product
from pathlib import Path
from typing import Any

from jepa_mpc.trajectories.guards import GRACE_BYTES, Patience, fault

GZIP, SHUFFLE, FLETCHER, LZF = 1, 2, 3, 32000
PACKERS = {GZIP: 1100, LZF: 100}
"""The largest possible ratio of unpacked to packed bytes, by filter."""

PIECE = 1 << 20  # bytes
CHECKSUM = 4  # bytes that fletcher32 appends
SLACK = 64  # bytes beyond the data that a chunk may unpack to, such as a checksum that was compressed with it


def check_filters(dataset: Any, where: Path, field: str) -> None:
    """Refuse a dataset that is compressed twice, or by another filter than gzip and lzf, whose output is not counted.

    Raises:
        BadEpisode: If it is.
    """
    used = _filters(dataset)
    if len(set(used)) < len(used) or set(used) - {GZIP, SHUFFLE, FLETCHER, LZF} or {GZIP, LZF} <= set(used):
        problem = f"is packed by the filters {used}, known are gzip or lzf once, shuffle and fletcher32"
        raise fault(where, field=field, problem=problem, remedy="pack it anew: h5repack -f GZIP=4")


def check_chunks(dataset: Any, start: int, stop: int, *, where: Path, field: str) -> None:
    """Refuse rows start..stop-1 of a compressed dataset if one of their chunks unpacks to more than it declares.

    Raises:
        BadEpisode: If one does, or is damaged.
    """
    used = _filters(dataset)
    packer = next((number for number in used if number in PACKERS), None)
    if packer is None:
        return
    claimed, patience = _chunk_bytes(dataset), Patience(where, seconds_per_mb=2.0)
    for place in _places(dataset, start, stop):
        patience.check()
        info = dataset.id.get_chunk_info_by_coord(place)
        if info.byte_offset is None or info.filter_mask >> used.index(packer) & 1:  # never written, or not compressed
            continue
        if PACKERS[packer] * info.size > GRACE_BYTES:
            packed = dataset.id.read_direct_chunk(place)[1]
            if FLETCHER in used[used.index(packer) :] and not info.filter_mask >> used.index(FLETCHER) & 1:
                packed = packed[:-CHECKSUM]
            if not (_fits_gzip if packer == GZIP else _fits_lzf)(packed, claimed + SLACK, patience):
                problem = f"has a chunk that does not unpack to the {claimed} bytes that it claims"
                raise fault(where, field=field, problem=problem, remedy="restore the file")


def _filters(dataset: Any) -> list[int]:
    """Numbers of the filters, in the order in which they are applied when a chunk is written."""
    created = dataset.id.get_create_plist()
    return [int(created.get_filter(at)[0]) for at in range(created.get_nfilters())]


def _chunk_bytes(dataset: Any) -> int:
    size = int(dataset.id.get_type().get_size())
    for side in dataset.chunks:
        size *= int(side)
    return size


def _places(dataset: Any, start: int, stop: int) -> Any:
    """The index of the first element of every chunk that holds some of the rows."""
    sides = dataset.chunks
    first = range(start - start % sides[0], stop, sides[0])
    others = (range(0, size, side) for size, side in zip(dataset.shape[1:], sides[1:], strict=True))
    return product(first, *others)


def _fits_gzip(packed: bytes, most: int, patience: Patience) -> bool:
    """Whether the stream unpacks to at most that many bytes."""
    unpacking, count, left = zlib.decompressobj(), 0, packed
    try:
        while not unpacking.eof and count <= most:
            patience.check()
            piece = unpacking.decompress(left, PIECE)
            count, left = count + len(piece), unpacking.unconsumed_tail
            if not piece and not left:
                break
    except zlib.error:
        return False
    return count <= most


def _fits_lzf(packed: bytes, most: int, patience: Patience) -> bool:
    """Whether the stream unpacks to at most that many bytes; its literals and copies are counted, not carried out.

    A control byte below 32 is followed by that many literal bytes and one more. Of any other, the upper three bits are
    the length of a copy less 2; if all are set, the next byte adds to it. The last byte of a copy is of its offset.
    """
    at = count = steps = 0
    while at < len(packed) and count <= most:
        steps += 1
        if steps & 0xFFF == 0:
            patience.check()
        control = packed[at]
        if control < 32:
            at, count = at + control + 2, count + control + 1
        elif control >> 5 < 7:
            at, count = at + 2, count + (control >> 5) + 2
        else:
            at, count = at + 3, count + (packed[at + 1] if at + 1 < len(packed) else 0) + 9
    return count <= most
