"""Reads untrusted HDF5 in a process of its own: nothing is read that declares more than its stored bytes can hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jepa_mpc.errors import BadEpisode, MissingPackage
from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.formats.apart import Answer, Send, all_apart
from jepa_mpc.trajectories.formats.base import fault
from jepa_mpc.trajectories.formats.h5_filters import check_chunks, check_filters
from jepa_mpc.trajectories.guards import Patience, check_room, plain_file, room

MAX_MEMBERS = 100_000
MAX_NAME = 200
MAX_RATIO = 1100  # deflate cannot shrink further
READ_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, IndexError, MemoryError,
               NotImplementedError, AttributeError, UnicodeDecodeError)  # fmt: skip
NUMERIC = ("|u1", "|b1", "<f4", "<f8", "<i8", "<i4", "<f2", "<u2", "<u4", "<u8", "<i2", "|i1")


H5Work = Callable[[Any, Send], Any]
"""Gets an opened file and a function that sends arrays; returns a JSON value."""


def read_h5(path: Path, work: H5Work) -> Answer:
    """What `work` makes of one HDF5 file (see `read_all_h5`).

    Raises:
        BadEpisode: If the file is missing or damaged.
        MissingPackage: If h5py is not installed.
    """
    (answer,) = read_all_h5([(path, work)])
    if isinstance(answer, BadEpisode):
        raise answer
    return answer


def read_all_h5(works: Sequence[tuple[Path, H5Work]]) -> list[Answer | BadEpisode]:
    """What is made of each of several HDF5 files, or why a file is refused.

    All are opened and read in one forked process (see `all_apart`), since libhdf5 crashes and loops on damaged files.

    Args:
        works: The files, and what to do with each.

    Raises:
        MissingPackage: If h5py is not installed.
    """
    try:
        import h5py  # noqa: F401  loaded here once, not in every process that is forked
    except ImportError as error:
        raise MissingPackage("h5py", "jepa_mpc.trajectories.formats.h5") from error
    return all_apart([(path, partial(open_h5, path, work)) for path, work in works])


def open_h5(path: Path, work: H5Work, send: Send) -> Any:
    """What `work` makes of an HDF5 file; only for a process of its own.

    Raises:
        BadEpisode: If the file is missing or damaged.
    """
    import h5py

    plain_file(path, path)
    try:
        with h5py.File(path, "r", locking=False) as file:
            return work(file, send)
    except BadEpisode:
        raise
    except READ_ERRORS as error:
        raise fault(path, field="file", problem=f"is damaged or no HDF5 file ({error})", remedy="restore it") from error


def datasets(group: Any, where: Path) -> dict[str, Any]:
    """All numeric or byte datasets below a group by slash-separated name; links out of the file are refused.

    Raises:
        BadEpisode: If a link leaves the file, or a member is damaged.
    """
    import h5py

    found: dict[str, Any] = {}
    seen, patience = {_address(group)}, Patience(where)
    todo = [("", group)]
    while todo:
        prefix, here = todo.pop(0)
        if prefix.count("/") > 8:
            raise fault(where, field=prefix, problem="is nested too deep")
        for name in here:
            patience.check()
            name = _sound_name(name, where)
            full = f"{prefix}{name}"
            member = member_of(here, name, where=where, field=full)
            if isinstance(member, h5py.Group):
                if _address(member) in seen:
                    raise fault(where, field=full, problem="is a group that is linked twice", remedy="store it once")
                seen.add(_address(member))
                todo.append((full + "/", member))
            elif isinstance(member, h5py.Dataset):
                found[full] = member
            if len(found) + len(seen) > MAX_MEMBERS:
                raise fault(where, field=prefix, problem=f"holds more than {MAX_MEMBERS} datasets and groups")
    return found


def names_of(group: Any, start: str, where: Path) -> list[str]:
    """The names in a group that begin with `start`.

    Raises:
        BadEpisode: If there are too many, or one is too long or not text.
    """
    if len(group) > MAX_MEMBERS:
        raise fault(where, field=str(group.name), problem=f"holds more than {MAX_MEMBERS} members")
    return [name for name in (_sound_name(name, where) for name in group) if name.startswith(start)]


def member_of(group: Any, name: str, *, where: Path, field: str) -> Any:
    """One member of a group, by its path; every part of the path must be in this file.

    Raises:
        BadEpisode: If it is missing or damaged, or a part of the path is a link out of the file.
    """
    import h5py

    here = group
    try:
        for part in filter(None, name.split("/")):
            link = here.get(_sound_name(part, where), getlink=True)
            if not isinstance(link, h5py.HardLink):
                problem = f"leads over {part!r}, a link to elsewhere"
                raise fault(where, field=field, problem=problem, remedy="store the data itself")
            here = here[part]
    except BadEpisode:
        raise
    except READ_ERRORS as error:
        raise fault(where, field=field, problem=f"is missing or damaged ({error})", remedy="restore it") from error
    return here


def attribute(item: Any, name: str, where: Path) -> Any:
    """A number or text attribute of a group or dataset, or None.

    Raises:
        BadEpisode: If it is damaged or a long list.
    """
    try:
        if name not in item.attrs:
            return None
        kept = item.attrs.get_id(name)
        if kept.shape is None or int(np.prod(kept.shape, dtype=object)) != 1 or kept.get_storage_size() > 1 << 16:
            return None
        value = item.attrs[name]
    except READ_ERRORS as error:
        raise fault(where, field=f"{item.name}@{name}", problem=f"is damaged ({error})", remedy="restore it") from error
    value = value.reshape(-1)[0] if isinstance(value, np.ndarray) else value
    return value.item() if isinstance(value, np.generic) else value


def noted_count(item: Any, name: str, counted: int, where: Path) -> None:
    """Compare a recorded number of steps with the actual one.

    Raises:
        BadEpisode: If it is not a number or differs.
    """
    noted = attribute(item, name, where)
    if noted is not None and (isinstance(noted, str | bytes) or noted != counted):
        field = f"{str(item.name).strip('/')}@{name}"
        raise fault(where, field=field, problem=f"is {noted!r}, there are {counted} steps", remedy="restore the file")


def _address(item: Any) -> int:
    import h5py

    return int(h5py.h5o.get_info(item.id).addr)


def _sound_name(name: str | bytes, where: Path) -> str:
    if isinstance(name, bytes):  # h5py's form of a name that is not UTF-8
        raise fault(
            where, field=name.decode("ascii", "replace")[:20], problem="is a name that is no text", remedy="rename it"
        )
    if len(name) > MAX_NAME or not name.isprintable():
        problem = f"is a name of {len(name)} characters that is too long or no text"
        raise fault(where, field=name[:20], problem=problem, remedy="rename it")
    return name


def check_claim(dataset: Any, where: Path, field: str) -> None:
    """Refuse a dataset whose declared size cannot fit into the file, before anything is allocated.

    Raises:
        BadEpisode: If shape, chunks and stored bytes contradict each other.
    """
    try:
        shape, stored = dataset.shape, int(dataset.id.get_storage_size())
        item = int(dataset.id.get_type().get_size())  # on disk; rows of variable length are stored as references
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
    if piece > min(room(where), MAX_RATIO * stored + (64 << 20)):
        raise fault(where, field=field, problem=f"claims chunks of {piece} bytes, {stored} bytes are stored")
    try:
        check_filters(dataset, where, field)
    except BadEpisode:
        raise
    except READ_ERRORS as error:
        raise fault(where, field=field, problem=f"has a damaged header ({error})", remedy="restore it") from error


def read_rows(dataset: Any, start: int, stop: int, *, where: Path, field: str) -> np.ndarray:
    """Rows start..stop-1 of a dataset, in the machine's byte order.

    Raises:
        BadEpisode: If the dataset is damaged, shorter or of an unusual dtype.
    """
    check_claim(dataset, where, field)
    if not dataset.shape or dataset.shape[0] < stop:
        raise fault(where, field=field, problem=f"has shape {dataset.shape}, expected at least {stop} steps")
    check_room((stop - start) * row_bytes(dataset), where, field=field)
    try:
        check_chunks(dataset, start, stop, where=where, field=field)
        rows = np.asarray(dataset[start:stop])
    except BadEpisode:
        raise
    except READ_ERRORS as error:
        raise fault(where, field=field, problem=f"is damaged ({error})", remedy="restore the file") from error
    return rows.astype(rows.dtype.newbyteorder("="), copy=False)


def row_bytes(dataset: Any) -> int:
    """Bytes of one row in memory."""
    return int(dataset.dtype.itemsize * np.prod([int(size) for size in dataset.shape[1:]], dtype=object))


def field_of(dataset: Any, *, where: Path, field: str, unit: str = "", hz: float | None = None) -> Field:
    """The declaration of a numeric dataset whose first axis is time.

    Raises:
        BadEpisode: If it holds anything but numbers.
    """
    check_claim(dataset, where, field)
    dtype = dataset.dtype.newbyteorder("=")
    if np.dtype(dtype).newbyteorder("<").str not in NUMERIC:
        raise fault(where, field=field, problem=f"has dtype {dataset.dtype}", remedy="expected numbers")
    return Field(shape=tuple(int(size) for size in dataset.shape[1:]), dtype=str(np.dtype(dtype)), unit=unit, hz=hz)
