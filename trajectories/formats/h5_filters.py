"""How the chunks of an HDF5 dataset are packed, and whether they unpack to what the dataset claims and no more.

The library lets a filter write as much as its input asks for: a chunk of 1 MB may become a gigabyte, whatever its
dataset's shape says. So chunks that could grow beyond bounds are unpacked piece by piece and counted beforehand.
"""

from __future__ import annotations

import zlib
from itertools import product
from pathlib import Path
from typing import Any

from jepa_mpc.trajectories.guards import GRACE_BYTES, Patience, fault

GZIP, SHUFFLE, FLETCHER, LZF = 1, 2, 3, 32000
PACKERS = {GZIP: 1100, LZF: 100}
"""How often a byte may come out of one that is stored, at most."""

PIECE = 1 << 20
SLACK = 64  # bytes of sums behind a chunk


def check_filters(dataset: Any, where: Path, field: str) -> None:
    """Refuse a dataset that is packed twice, or by a filter whose work cannot be bounded.

    Raises:
        BadEpisode: If it is.
    """
    used = _filters(dataset)
    if len(set(used)) < len(used) or set(used) - {GZIP, SHUFFLE, FLETCHER, LZF} or {GZIP, LZF} <= set(used):
        problem = f"is packed by the filters {used}, known are gzip or lzf once, shuffle and fletcher32"
        raise fault(where, field=field, problem=problem, remedy="pack it anew: h5repack -f GZIP=4")


def check_chunks(dataset: Any, start: int, stop: int, *, where: Path, field: str) -> None:
    """Refuse rows of a packed dataset whose chunks would unpack to more than they claim.

    Raises:
        BadEpisode: If one would, or is damaged.
    """
    used = _filters(dataset)
    packer = next((number for number in used if number in PACKERS), None)
    if packer is None:
        return
    claimed, patience = _chunk_bytes(dataset), Patience(where, seconds_per_mb=2.0)
    for place in _places(dataset, start, stop):
        patience.check()
        info = dataset.id.get_chunk_info_by_coord(place)
        if info.byte_offset is None or info.filter_mask >> used.index(packer) & 1:  # not there, or stored as it is
            continue
        if PACKERS[packer] * info.size > GRACE_BYTES:
            packed = dataset.id.read_direct_chunk(place)[1]
            if not (_fits_gzip if packer == GZIP else _fits_lzf)(packed, claimed + SLACK, patience):
                problem = f"has a chunk that does not unpack to the {claimed} bytes that it claims"
                raise fault(where, field=field, problem=problem, remedy="restore the file")


def _filters(dataset: Any) -> list[int]:
    """Numbers of the filters in the order in which they were applied."""
    created = dataset.id.get_create_plist()
    return [int(created.get_filter(at)[0]) for at in range(created.get_nfilters())]


def _chunk_bytes(dataset: Any) -> int:
    size = int(dataset.id.get_type().get_size())
    for side in dataset.chunks:
        size *= int(side)
    return size


def _places(dataset: Any, start: int, stop: int) -> Any:
    """The first element of every chunk that holds some of the rows."""
    sides = dataset.chunks
    first = range(start - start % sides[0], stop, sides[0])
    others = (range(0, size, side) for size, side in zip(dataset.shape[1:], sides[1:], strict=True))
    return product(first, *others)


def _fits_gzip(packed: bytes, most: int, patience: Patience) -> bool:
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
    """Whether what the stream describes, literals and repetitions, is that short."""
    at = count = 0
    while at < len(packed) and count <= most:
        control = packed[at]
        if control < 32:
            at, count = at + control + 2, count + control + 1
        elif control >> 5 < 7:
            at, count = at + 2, count + (control >> 5) + 2
        else:
            at, count = at + 3, count + (packed[at + 1] if at + 1 < len(packed) else 0) + 9
        if count & 0xFFF == 0:
            patience.check()
    return count <= most
