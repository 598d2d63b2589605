"""Reading HDF5 without believing it: no dataset is opened whose claimed size its stored bytes cannot hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jepa_mpc.errors import BadEpisode, MissingPackage
from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.formats.base import fault

MAX_RATIO = 1100  # deflate cannot shrink further
READ_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, IndexError, MemoryError,
               NotImplementedError, AttributeError, UnicodeDecodeError)  # fmt: skip
NUMERIC = ("|u1", "|b1", "<f4", "<f8", "<i8", "<i4", "<f2", "<u2", "<u4", "<u8", "<i2", "|i1")


@contextmanager
def open_h5(path: Path) -> Iterator[Any]:
    """An HDF5 file opened for reading; what goes wrong inside is told with the file's name.

    Raises:
        BadEpisode: If the file is missing or damaged.
        MissingPackage: If h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingPackage("h5py", "jepa_mpc.trajectories.formats.h5") from error
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (BadEpisode, IndexError):
        raise
    except READ_ERRORS as error:
        raise fault(path, field="file", problem=f"is damaged or no HDF5 file ({error})", remedy="restore it") from error


def datasets(group: Any, where: Path) -> dict[str, Any]:
    """All numeric or byte datasets below a group by slash-separated name; links that lead elsewhere are refused.

    Raises:
        BadEpisode: If a link leaves the file, or a member is damaged.
    """
    import h5py

    found: dict[str, Any] = {}
    todo = [("", group)]
    while todo:
        prefix, here = todo.pop(0)
        if prefix.count("/") > 8 or len(found) > 100_000:
            raise fault(where, field=prefix, problem="is nested too deep")
        for name in here:
            full = f"{prefix}{name}"
            if not isinstance(here.get(name, getlink=True), h5py.HardLink):
                raise fault(where, field=full, problem="is a link to elsewhere", remedy="store the data itself")
            member = member_of(here, name, where=where, field=full)
            if isinstance(member, h5py.Group):
                todo.append((full + "/", member))
            elif isinstance(member, h5py.Dataset):
                found[full] = member
    return found


def member_of(group: Any, name: str, *, where: Path, field: str) -> Any:
    """One member of a group.

    Raises:
        BadEpisode: If it is missing or damaged.
    """
    try:
        return group[name]
    except READ_ERRORS as error:
        raise fault(where, field=field, problem=f"is missing or damaged ({error})", remedy="restore it") from error


def check_claim(dataset: Any, where: Path, field: str) -> None:
    """Refuse a dataset whose declared size cannot be in the file, before anything is allocated.

    Raises:
        BadEpisode: If shape, chunks and stored bytes contradict each other.
    """
    try:
        shape, stored = dataset.shape, int(dataset.id.get_storage_size())
        item = int(dataset.id.get_type().get_size())  # on disk; rows of varying length are kept as references
        claimed = item * int(np.prod([int(size) for size in shape], dtype=object)) if shape is not None else -1
        chunk = dataset.chunks
        piece = 0 if chunk is None else item * int(np.prod([int(size) for size in chunk], dtype=object))
        external = dataset.external is not None or dataset.is_virtual
    except READ_ERRORS as error:
        raise fault(where, field=field, problem=f"has a damaged header ({error})", remedy="restore it") from error
    if external or stored > where.stat().st_size:
        raise fault(where, field=field, problem="does not lie in this file", remedy="store the data itself")
    if claimed < 0 or claimed > MAX_RATIO * stored or (chunk is None and claimed != stored):
        raise fault(where, field=field, problem=f"claims shape {shape} but {stored} bytes are stored")
    if piece > MAX_RATIO * max(stored, 1) + (64 << 20):
        raise fault(where, field=field, problem=f"claims chunks of {piece} bytes, {stored} bytes are stored")


def read_rows(dataset: Any, start: int, stop: int, *, where: Path, field: str) -> np.ndarray:
    """Rows start..stop-1 of a dataset, in the machine's byte order.

    Raises:
        BadEpisode: If the dataset is damaged, shorter or of an unusual dtype.
    """
    check_claim(dataset, where, field)
    if not dataset.shape or dataset.shape[0] < stop:
        raise fault(where, field=field, problem=f"has shape {dataset.shape}, expected at least {stop} steps")
    try:
        rows = np.asarray(dataset[start:stop])
    except READ_ERRORS as error:
        raise fault(where, field=field, problem=f"is damaged ({error})", remedy="restore the file") from error
    return rows.astype(rows.dtype.newbyteorder("="), copy=False)


def field_of(dataset: Any, *, where: Path, field: str, unit: str = "", hz: float | None = None) -> Field:
    """The declaration of a numeric dataset whose first axis is time.

    Raises:
        BadEpisode: If it holds something else than numbers.
    """
    check_claim(dataset, where, field)
    dtype = dataset.dtype.newbyteorder("=")
    if np.dtype(dtype).newbyteorder("<").str not in NUMERIC:
        raise fault(where, field=field, problem=f"has dtype {dataset.dtype}", remedy="expected numbers")
    return Field(shape=tuple(int(size) for size in dataset.shape[1:]), dtype=str(np.dtype(dtype)), unit=unit, hz=hz)
