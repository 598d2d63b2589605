"""Nested states (of an optimiser or training) as tensors plus a JSON layout, and back, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from jepa_mpc.errors import BadCheckpoint


def pack_state(state: Mapping[Any, Any]) -> tuple[dict[str, Tensor], Any]:
    """Split a nested state into tensors and a JSON layout for rebuilding it.

    Args:
        state: Mappings, lists and tuples of tensors, numbers, strings and None, e.g. an optimiser's `state_dict()`.

    Raises:
        TypeError: If it holds anything else; names the entry.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _pack(state, "state", tensors)


def unpack_state(tensors: Mapping[str, Tensor], layout: Any) -> Any:
    """Rebuild a state, bit for bit as passed to `pack_state` (tensors on the CPU).

    Raises:
        BadCheckpoint: If layout and tensors do not match.
    """
    match layout:
        case {"tensor": str(name)} if name in tensors:
            return tensors[name]
        case {"float": str(digits)}:
            return float(digits)
        case {"mapping": list(pairs)} if all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            return {key: unpack_state(tensors, value) for key, value in pairs}
        case {"list": list(values)}:
            return [unpack_state(tensors, value) for value in values]
        case {"tuple": list(values)}:
            return tuple(unpack_state(tensors, value) for value in values)
        case None | bool() | int() | float() | str():
            return layout
    raise BadCheckpoint(f"the layout of the saved state is damaged or its tensors are missing: {str(layout)[:80]!r}")


def _pack(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    match value:
        case Tensor():
            name = place if place not in tensors else f"{place}#{len(tensors)}"  # "a.b" may also be b inside a
            tensors[name] = value
            return {"tensor": name}
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"float": repr(value)}
        case Mapping():
            return {
                "mapping": [[_key(key, place), _pack(item, f"{place}.{key}", tensors)] for key, item in value.items()]
            }
        case list() | tuple():
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [_pack(item, f"{place}.{index}", tensors) for index, item in enumerate(value)]}
    raise TypeError(
        f"{place} is a {type(value).__name__}: only tensors, numbers, strings, None and nests of them can be saved"
    )


def _key(key: Any, place: str) -> str | int:
    if not isinstance(key, str | int):
        raise TypeError(f"{place} has the key {key!r}: only strings and integers can be saved")
    return key
