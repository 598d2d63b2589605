"""Reads foreign weight files as plain tables: no code is executed, and damage raises a one-line error."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.weights import read_tensors

UNREADABLE = (
    *(safetensors.SafetensorError, zipfile.BadZipFile, RuntimeError, EOFError, OSError),
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, TypeError, ValueError, struct.error),
)
"""Errors of PyTorch and safetensors for damaged files."""

_SCALAR = np.float64(0).__reduce__()[0]
_PLAIN_NUMBERS: list[Any] = [
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType),
]
"""Types of a trainer's loss or epoch besides Python's own numbers; none executes code."""


def read_plain(file: Path) -> dict[Any, Any]:
    """The table in a `.safetensors` file or a trainer's `.pt`: tensors, numbers, strings and nests of them.

    A `.pt` file is memory-mapped, so what is not used of it is not read.

    Raises:
        BadCheckpoint: If the file is missing, damaged, or holds Python objects.
    """
    try:
        if file.suffix == ".safetensors":
            with file.open("rb") as opened:
                return read_tensors(opened, file.stat().st_size)
        with torch.serialization.safe_globals(_PLAIN_NUMBERS):
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise BadCheckpoint(
            f"{file} cannot be read as weights: it holds Python objects, which are not loaded, or is damaged; save the "
            "model's state_dict() alone, or download it again"
        ) from error
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise BadCheckpoint(f"{file} cannot be read as weights (cut short? download it again): {reason}") from error
    if not isinstance(content, dict):
        raise BadCheckpoint(f"{file} should hold a table of tensors, got {type(content).__name__}")
    return content


def read_table(file: Path) -> dict[str, Tensor]:
    """The tensors of a weight file; of a trainer's file, its `state_dict` or `model`.

    Raises:
        BadCheckpoint: If the file is missing, damaged, or holds other values than tensors there.
    """
    content = read_plain(file)
    found = next((content[name] for name in ("state_dict", "model") if name in content), content)
    if not is_table(found):
        entries = ", ".join(list(map(str, content))[:8]) or "none"
        raise BadCheckpoint(f"{file} should hold a table of tensors, its entries are {entries}")
    return dict(found)


def is_table(value: Any) -> bool:
    """Whether a value is a state dictionary: names to tensors, at least one."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(entry, Tensor) for name, entry in value.items())
    )
