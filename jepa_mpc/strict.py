"""Weights that fit a module one to one, or none at all."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from jepa_mpc.errors import BadCheckpoint

logger = logging.getLogger(__name__)
NUM_NAMES_SHOWN = 8


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Copy tensors into a module if, and only if, names, shapes and dtypes agree one to one.

    Args:
        module: Takes the weights.
        tensors: Weights by the names of `module.state_dict()`.
        name: What the module is called in the error message.

    Raises:
        BadCheckpoint: If something is missing, too much or of another shape or dtype; lists all of it.
    """
    wanted = module.state_dict()
    both = sorted(wanted.keys() & tensors.keys())
    faults = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - wanted.keys()),
        "of another shape or dtype": [
            f"{key} (expected {kind_of(wanted[key])}, got {kind_of(tensors[key])})"
            for key in both
            if kind_of(wanted[key]) != kind_of(tensors[key])
        ],
    }
    found = [f"{len(names)} {fault}: {_some(names)}" for fault, names in faults.items() if names]
    if found:
        raise BadCheckpoint(f"these weights do not fit {name}: {'; '.join(found)}")
    module.load_state_dict(dict(tensors), strict=True)


def load_part(module: nn.Module, tensors: Mapping[str, Tensor], part: str, name: str) -> None:
    """Give a module the weights that one part of a larger network has; all of the module must be covered.

    Args:
        module: Takes the weights.
        tensors: Weights of the larger network.
        part: Where the module sits in it, e.g. "encoder".
        name: What the module is called in messages.

    Raises:
        BadCheckpoint: If the part's weights do not fit the module one to one.
    """
    within = {key.removeprefix(f"{part}."): value for key, value in tensors.items() if key.startswith(f"{part}.")}
    if not within:
        parts = sorted({key.partition(".")[0] for key in tensors})
        raise BadCheckpoint(f"these weights have no part {part!r} for {name}; they have {', '.join(parts)}")
    load_strict(module, within, name)
    logger.info("%s: %d of %d tensors taken, all of it covered", name, len(within), len(tensors))


def kind_of(tensor: Tensor) -> str:
    """Shape and dtype in words."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - NUM_NAMES_SHOWN
    return ", ".join(names[:NUM_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
