"""Reads the members of an .npz episode: uncompressed .npy arrays in a zip file, of which single rows can be read.

Nothing is ever unpickled, and every size that a header declares is first compared with the size of the file.
"""

from __future__ import annotations

import ast
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.plain_json import parse_json
from jepa_mpc.trajectories.episode import IMAGES
from jepa_mpc.trajectories.guards import plain_file

FORMAT_VERSION = 1
METADATA = "metadata.json"
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, struct.error, RuntimeError,
              NotImplementedError, OverflowError, IndexError)  # fmt: skip
MAX_HEADER = 4096
MAX_DIRECTORY = 1 << 17  # bytes of a zip directory: hundreds of members
PIECE = 1 << 20  # bytes of a member that are read at a time


class Pictures(NamedTuple):
    """The rows start..stop-1 to read of each array of pictures.

    Args:
        start: First row.
        stop: One past the last row.
        steps: Rows that the array must have.
        summed: Names of the arrays of this file whose checksums have been compared; `read_members` adds to it.
    """

    start: int
    stop: int
    steps: int
    summed: set[str]


def read_members(
    path: Path, names: Iterable[str] | None, *, pictures: Pictures | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the named arrays (None: all) and the metadata of one file, checked against their checksums.

    Args:
        path: The file.
        names: The arrays.
        pictures: The rows to read of arrays of pictures; all by default. The checksum of an array, which covers all
            rows, is compared when it is first read.

    Raises:
        BadEpisode: If the file or a member is damaged or missing.
    """
    plain_file(path, path.parent)
    try:
        with BoundedFile(path) as file, zipfile.ZipFile(file) as archive:
            file.most = file.total  # opening the archive has read the directory
            _check_members(archive, path.name)
            metadata = _metadata(archive, path.name)
            if names is None:
                names = [info.filename.removesuffix(".npy") for info in archive.infolist() if info.filename != METADATA]
            windows = {name: pictures for name in names if name.startswith(IMAGES)}
            return {name: _array(archive, name, where=path.name, rows=windows.get(name)) for name in names}, metadata
    except BadEpisode:
        raise
    except UNREADABLE as error:
        raise BadEpisode(f"{path.name}: field 'file': damaged or cut short ({error})") from error


class BoundedFile(io.FileIO):
    """A file that never reads more bytes than are left in it, so that a false size in a header allocates nothing.

    Until `most` is raised, a read returns at most `MAX_DIRECTORY` bytes, enough for the directory of an episode.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self.total = path.stat().st_size
        self.most = MAX_DIRECTORY

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes, and never more than are left or than `most`."""
        left = min(max(self.total - self.tell(), 0), self.most)
        return super().read(left if size is None or size < 0 else min(size, left))


def _bytes(archive: zipfile.ZipFile, member: str, *, field: str, where: str) -> bytes:
    """The bytes of one member; errors name the field."""
    info = _member(archive, member, field=field, where=where)
    try:
        return archive.read(info)
    except UNREADABLE as error:
        raise BadEpisode(f"{where}: field {field!r} is damaged ({error})") from error


def _member(archive: zipfile.ZipFile, member: str, *, field: str, where: str) -> zipfile.ZipInfo:
    """The directory entry of a member, which must be stored uncompressed."""
    try:
        info = archive.getinfo(member)
    except KeyError as error:
        raise BadEpisode(f"{where}: field {field!r} is missing") from error
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise BadEpisode(f"{where}: field {field!r} must be stored uncompressed")
    if not 0 < info.file_size <= archive.fp.total:  # type: ignore[union-attr]
        raise BadEpisode(f"{where}: field {field!r} claims {info.file_size} bytes, more than the file holds")
    return info


def _check_members(archive: zipfile.ZipFile, where: str) -> None:
    names = [info.filename for info in archive.infolist()]
    twice = next((name for at, name in enumerate(sorted(names)[1:]) if sorted(names)[at] == name), None)
    if twice is not None:
        raise BadEpisode(f"{where}: field {twice.removesuffix('.npy')!r} occurs twice: write the file again")


def _metadata(archive: zipfile.ZipFile, where: str) -> dict[str, Any]:
    raw = _bytes(archive, METADATA, field=METADATA, where=where)
    try:
        metadata = parse_json(raw)
    except ValueError as error:
        raise BadEpisode(f"{where}: field {METADATA!r} is not JSON ({error})") from error
    if not isinstance(metadata, dict):
        raise BadEpisode(f"{where}: field {METADATA!r} must be a JSON object")
    version = metadata.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise BadEpisode(
            f"{where}: field {METADATA!r}: format_version is {version!r}, this program reads {FORMAT_VERSION}"
        )
    return metadata


def _array(archive: zipfile.ZipFile, name: str, *, where: str, rows: Pictures | None) -> np.ndarray:
    """Parse one .npy member; its dtype must be a known one and its size match the bytes that are there."""
    if rows is not None:
        return _rows(archive, name, rows, where=where)
    raw = _bytes(archive, name + ".npy", field=name, where=where)
    shape, dtype, end = npy_header(raw, name, where=where)
    if math.prod(shape) * dtype.itemsize != len(raw) - end:
        raise BadEpisode(f"{where}: field {name!r} claims shape {shape} but holds {len(raw) - end} bytes")
    return np.frombuffer(raw, dtype, offset=end).reshape(shape)


def _rows(archive: zipfile.ZipFile, name: str, rows: Pictures, *, where: str) -> np.ndarray:
    """Some rows of a member; the first time, all of it is read piece by piece to compare its checksum."""
    info = _member(archive, name + ".npy", field=name, where=where)
    try:
        with archive.open(info) as stream:
            head = stream.read(MAX_HEADER)
            shape, dtype, end = npy_header(head, name, where=where)
            row = math.prod(shape[1:]) * dtype.itemsize
            if not shape or shape[0] * row != info.file_size - end:
                raise BadEpisode(f"{where}: field {name!r} claims shape {shape} but holds {info.file_size - end} bytes")
            if shape[0] != rows.steps:
                problem = f"has {shape[0]} steps where the timestamps have {rows.steps}"
                raise BadEpisode(f"{where}: field {name!r} {problem}")
            while name not in rows.summed and stream.read(PIECE):
                pass  # zipfile compares the checksum when it reaches the end
        rows.summed.add(name)
        file: Any = archive.fp
        file.seek(_data_at(file, info) + end + rows.start * row)
        kept = file.read(row * (rows.stop - rows.start))
        if len(kept) < row * (rows.stop - rows.start):
            raise BadEpisode(f"{where}: field {name!r} ends before step {rows.stop}")
    except BadEpisode:
        raise
    except UNREADABLE as error:
        raise BadEpisode(f"{where}: field {name!r} is damaged ({error})") from error
    return np.frombuffer(kept, dtype).reshape(rows.stop - rows.start, *shape[1:])


def _data_at(file: Any, info: zipfile.ZipInfo) -> int:
    """Position of a member's first byte in the file: after its own header, its name and its extra fields."""
    file.seek(info.header_offset)
    name, extra = struct.unpack("<HH", file.read(30)[26:])
    return int(info.header_offset) + 30 + name + extra


def npy_header(head: bytes, name: str, *, where: str) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype and length in bytes of the header of a .npy file, given its first bytes.

    Raises:
        BadEpisode: If the header is not of version 1.0, is unreadable, or declares a dtype or shape that no log has.
    """
    if len(head) < 10 or head[:8] != b"\x93NUMPY\x01\x00":
        raise BadEpisode(f"{where}: field {name!r} is not a .npy array of version 1.0")
    end = 10 + int.from_bytes(head[8:10], "little")
    if end > min(len(head), MAX_HEADER):
        raise BadEpisode(f"{where}: field {name!r} has a header of {end} bytes")
    try:
        header = ast.literal_eval(head[10:end].decode("latin1").strip())
        shape, descr, fortran = tuple(header["shape"]), header["descr"], header["fortran_order"]
        sizes_sound = all(type(size) is int and size >= 0 for size in shape)
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise BadEpisode(f"{where}: field {name!r} has an unreadable header") from error
    if not sizes_sound or fortran is not False or descr not in ("|u1", "|b1", "<f4", "<f8", "<i8", "<i4", "<f2"):
        raise BadEpisode(f"{where}: field {name!r} has dtype {descr!r} or shape {shape!r} that no episode has")
    return shape, np.dtype(descr), end
