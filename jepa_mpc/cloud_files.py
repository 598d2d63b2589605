"""Point clouds from files: .npy and .npz arrays, and .ply as scanners write it. No file content is executed."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from itertools import islice
from pathlib import Path

import numpy as np

from jepa_mpc.clouds import Cloud, checked_cloud
from jepa_mpc.errors import BadObservation

SUFFIXES = (".npz", ".npy", ".ply")
NAMES = ("points", "xyz", "arr_0")
"""Names under which an archive of several arrays may hold its points."""

MOST_BYTES = 1 << 30
MAX_HEADER = 1 << 16
GRACE_BYTES = 64 << 20
TEXT_BYTES = 128 << 20
BLOCK = 4096  # lines of a text that are numbers at a time
UNREADABLE = (OSError, ValueError, LookupError, EOFError, TypeError, RuntimeError, struct.error, zipfile.BadZipFile,
              zlib.error)  # fmt: skip
PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
PLY_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


def read_cloud(file: str | Path, *, least: int = 1) -> Cloud:
    """The points of a file.

    Args:
        file: `.npy` or `.npz` with an array `G 3` (further columns are ignored; among several arrays, `points` is
            used), or `.ply` with a vertex element that has x, y and z.
        least: Minimum number of points.

    Returns:
        float32 `G 3`, in the file's unit.

    Raises:
        BadObservation: If the file is missing or damaged, or holds too few or non-finite points.
    """
    path = Path(file)
    if path.suffix.lower() not in SUFFIXES:
        raise BadObservation(f"{path.name}: expected a point cloud in one of {', '.join(SUFFIXES)}")
    try:
        if not path.is_file() and path.exists():
            raise BadObservation(f"{path.name} is no plain file")
        if path.stat().st_size > MOST_BYTES:
            raise BadObservation(f"{path.name} has {path.stat().st_size} bytes: the limit for a cloud is {MOST_BYTES}")
        raw = path.read_bytes()
        points = _ply(raw) if path.suffix.lower() == ".ply" else _arrays(raw)
    except BadObservation:
        raise
    except FileNotFoundError as error:
        raise BadObservation(f"there is no file {path}") from error
    except UNREADABLE as error:
        raise BadObservation(f"{path.name} cannot be read as a point cloud (cut short?): {error}") from error
    return checked_cloud(points, least=least, where=path.name)


def _arrays(raw: bytes) -> np.ndarray:
    if raw[:2] != b"PK":
        return _numbers(np.lib.format.read_array(io.BytesIO(raw), allow_pickle=False))
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
        if len(sizes) < len(archive.infolist()):
            raise ValueError("an array is there twice")
        name = next((known for known in NAMES if known in sizes), next(iter(sizes), "") if len(sizes) == 1 else "")
        if not name:
            raise ValueError(f"expected an array called points, got {', '.join(sizes) or 'nothing'}")
        _check_size(sizes[name], raw)
        return _numbers(np.lib.format.read_array(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False))


def _numbers(points: np.ndarray) -> np.ndarray:
    if points.dtype.kind not in "fiu":
        raise ValueError(f"expected numbers, got {points.dtype}")
    return points


def _check_size(size: int, raw: bytes) -> None:
    """Refuse points that need far more memory than their file."""
    if not 0 <= size <= 2 * len(raw) + GRACE_BYTES:
        raise ValueError(f"its points claim {size} bytes, the file has {len(raw)}")


def _ply(raw: bytes) -> np.ndarray:
    """x, y and z of the vertices, which must be the first element."""
    end = raw.find(b"end_header", 0, MAX_HEADER)
    start = raw.find(b"\n", end) + 1
    if not raw.startswith(b"ply") or end < 0 or start == 0:
        raise ValueError("no header of a .ply file")
    lines = [words for line in raw[:end].decode("ascii").splitlines() if (words := line.split())]
    order = next((PLY_ORDERS[line[1]] for line in lines if line[0] == "format"), None)
    elements = [at for at, line in enumerate(lines) if line[0] == "element"]
    if order is None or not elements or lines[elements[0]][1] != "vertex":
        raise ValueError("the first element must be the vertices")
    count = int(lines[elements[0]][2])
    stop = elements[1] if len(elements) > 1 else len(lines)
    columns = [line for line in lines[elements[0] : stop] if line[0] == "property"]
    if any(line[1] == "list" for line in columns) or not {"x", "y", "z"} <= {line[-1] for line in columns}:
        raise ValueError("vertices must have the plain properties x, y and z")
    names = [line[-1] for line in columns]
    if order == "":
        return _text_rows(raw, start, count, [names.index(axis) for axis in "xyz"])
    step = np.dtype([(name, order + PLY_TYPES[line[1]]) for name, line in zip(names, columns, strict=True)])
    if not 0 <= count * step.itemsize <= len(raw) - start:
        raise ValueError(f"the header declares {count} vertices, more than the file holds")
    _check_size(12 * count, raw)
    table = np.frombuffer(raw, step, count=count, offset=start)
    return np.stack([table[axis].astype(np.float32) for axis in "xyz"], axis=1)


def _text_rows(raw: bytes, start: int, count: int, axes: list[int]) -> np.ndarray:
    """x, y and z from the lines of a text file, block by block."""
    if len(raw) > TEXT_BYTES:
        raise ValueError(f"a text file of {len(raw)} bytes: the limit is {TEXT_BYTES}, store it as binary")
    points, found = np.empty((max(0, min(count, len(raw) // 6 + 1)), 3), dtype=np.float32), 0
    lines = io.BytesIO(memoryview(raw)[start:])
    while found < len(points) and (block := list(islice(lines, min(BLOCK, len(points) - found)))):
        if any(b"_" in line for line in block):  # Python would read 1_000
            raise ValueError("numbers must not contain underscores")
        rows = np.array([line.decode("ascii").split() for line in block], dtype=np.float64)
        points[found : found + len(block)] = rows[:, axes]
        found += len(block)
    if found != count:
        raise ValueError(f"the header declares {count} vertices, the file holds {found}")
    return points
