"""Named tensors as a safetensors file, its header, and hashes of parts."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import safetensors.torch
import torch
from torch import Tensor

from jepa_mpc.plain_json import parse_json
from jepa_mpc.strict import kind_of

LARGEST_HEADER = 64 * 2**20
MOST_AXES = 64
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "C64": torch.complex64,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "BOOL": torch.bool,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A tensor in the header of a safetensors file.

    Args:
        shape: Its shape.
        dtype: Its dtype.
        start: Where it begins among the tensors, in bytes.
    """

    shape: Sequence[int]
    dtype: torch.dtype
    start: int

    @property
    def num_bytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class Header:
    """The header of a safetensors file.

    Args:
        entries: The tensors.
        notes: Metadata of the file.
        num_bytes: Size of all tensors.
    """

    entries: Mapping[str, Entry]
    notes: Mapping[str, str]
    num_bytes: int

    @property
    def kinds(self) -> dict[str, str]:
        """Shape and dtype of each tensor as text, as `jepa_mpc.strict.kind_of` formats them."""
        return {name: kind_of(entry.shape, entry.dtype) for name, entry in self.entries.items()}


def read_header(file: IO[bytes], size: int) -> Header:
    """Read the header of a safetensors file without its tensors.

    Args:
        file: The file, at its beginning.
        size: Length of the whole file in bytes.

    Raises:
        ValueError: If the header does not fit a file of that length; says how.
    """
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= min(LARGEST_HEADER, size - 8):
        raise ValueError(f"its header declares {length} bytes, the file has {size}")
    content = parse_json(file.read(length))
    if not isinstance(content, dict):
        raise ValueError("its header is not a JSON object")
    notes = content.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        raise ValueError("the __metadata__ of its header is not a table of strings")
    entries = {name: _entry(name, entry) for name, entry in content.items()}
    num_bytes = sum(entry.num_bytes for entry in entries.values())
    if num_bytes != size - 8 - length:
        raise ValueError(f"its tensors need {num_bytes} bytes, the file holds {size - 8 - length}")
    return Header(entries=entries, notes=notes, num_bytes=num_bytes)


def read_tensors(file: IO[bytes], size: int) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU, in memory of their own: never more than they need.

    Args:
        file: The file, at its beginning.
        size: Length of the whole file in bytes.

    Raises:
        ValueError: If it is not a safetensors file of that length.
    """
    header, tensors = read_header(file, size), {}
    first = file.tell()
    for name, entry in header.entries.items():
        if not 0 <= entry.start <= header.num_bytes - entry.num_bytes:
            raise ValueError(f"its tensor {name[:80]!r} begins at byte {entry.start} of {header.num_bytes}")
        tensor = torch.empty(entry.num_bytes, dtype=torch.uint8)
        file.seek(first + entry.start)
        if file.readinto(tensor.numpy()) != entry.num_bytes:  # type: ignore[attr-defined]
            raise ValueError(f"it ends within the tensor {name[:80]!r}")
        tensors[name] = tensor.view(entry.dtype).view(entry.shape)
    return tensors


def to_bytes(tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> bytes:
    """A safetensors file of tensors that share no memory, with metadata."""
    return safetensors.torch.save(dict(tensors), metadata=dict(notes))


def from_bytes(content: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        ValueError: If it is not a safetensors file.
    """
    return read_tensors(io.BytesIO(content), len(content))


def part_hashes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 of each part (`encoder`, `predictor`, ...: names up to the first dot): names, shapes, dtypes, values."""
    parts: dict[str, Any] = {}
    for name, tensor in sorted(tensors.items()):
        seal = parts.setdefault(name.partition(".")[0], hashlib.sha256())
        seal.update(f"{name} {kind_of(tensor.shape, tensor.dtype)};".encode())
        seal.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return {name: seal.hexdigest() for name, seal in parts.items()}


def _entry(name: str, entry: Any) -> Entry:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(end)]} if (
            dtype in _DTYPES and _are_sizes(shape)
        ):
            found = Entry(shape=shape, dtype=_DTYPES[dtype], start=start)
            if end - start == found.num_bytes:
                return found
    raise ValueError(f"its header has no valid entry for the tensor {name[:80]!r}")


def _are_sizes(values: Sequence[Any]) -> bool:
    return len(values) <= MOST_AXES and all(type(value) is int and 0 <= value < 2**63 for value in values)
