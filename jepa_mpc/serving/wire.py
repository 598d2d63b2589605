"""Frames of the openpi protocol: msgpack maps with numpy arrays, byte-compatible with openpi-client.

    array   {b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [8, 3]}
    scalar  {b"__npgeneric__": True, b"data": 1.5, b"dtype": "<f4"}

No frame content is executed; the length of an array must match its shape and dtype.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from jepa_mpc.errors import BadObservation, MissingPackage

ARRAY, SCALAR = b"__ndarray__", b"__npgeneric__"
KINDS = "biufSUmM"
"""Allowed kinds of numpy dtypes; openpi refuses records, objects and complex numbers."""

MOST_AXES = 16


def pack(message: Mapping[str, Any]) -> bytes:
    """Pack a map of strings, numbers, lists and numpy arrays into one frame.

    Raises:
        TypeError: If a value has an unsupported type.
        MissingPackage: If msgpack is not installed.
    """
    packed: bytes = _msgpack().packb(message, default=_plain)
    return packed


def unpack(frame: bytes) -> dict[str, Any]:
    """Unpack a frame; its arrays become read-only numpy arrays.

    Raises:
        BadObservation: If the frame is not a msgpack map, or an array in it is inconsistent.
        MissingPackage: If msgpack is not installed.
    """
    try:
        message = _msgpack().unpackb(frame, object_hook=_whole)
    except BadObservation:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise BadObservation(
            f"expected a msgpack map, got {len(frame)} bytes that cannot be unpacked: {error}"
        ) from error
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise BadObservation(f"expected a msgpack map with strings as keys, got a {type(message).__name__}")
    return message


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in KINDS:
        raise TypeError(f"arrays of dtype {value.dtype} cannot be sent")
    if isinstance(value, np.ndarray):
        return {ARRAY: True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        return {SCALAR: True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"a {type(value).__name__} cannot be sent: only strings, numbers, lists, maps and numpy arrays")


def _whole(entry: dict[Any, Any]) -> Any:
    try:
        if ARRAY in entry:
            return _array(entry[b"data"], _dtype(entry[b"dtype"]), entry[b"shape"])
        if SCALAR in entry:
            return _dtype(entry[b"dtype"]).type(entry[b"data"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadObservation(f"an array in the frame is damaged: {error!r}") from error
    return entry


def _dtype(name: Any) -> np.dtype[Any]:
    dtype = np.dtype(name) if isinstance(name, str) else None
    if dtype is None or dtype.kind not in KINDS:
        raise ValueError(f"dtype {str(name)[:40]!r} is not supported")
    return dtype


def _array(data: Any, dtype: np.dtype[Any], shape: Any) -> np.ndarray:
    sizes = list(shape)
    if len(sizes) > MOST_AXES or not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise ValueError(f"shape {str(sizes)[:60]} is invalid")
    if not isinstance(data, bytes) or len(data) != math.prod(sizes) * dtype.itemsize:
        raise ValueError(f"shape {sizes} of {dtype} does not fit {len(data)} bytes")
    return np.frombuffer(data, dtype=dtype).reshape(sizes) if data else np.zeros(sizes, dtype)


def _msgpack() -> ModuleType:
    try:
        import msgpack
    except ImportError as error:
        raise MissingPackage("msgpack", "jepa_mpc.serving") from error
    return msgpack
