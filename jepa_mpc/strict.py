"""Strict loading: weights must match a module one to one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from jepa_mpc.errors import BadCheckpoint

logger = logging.getLogger(__name__)
NUM_NAMES_SHOWN = 8


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Copy tensors into a module if, and only if, names, shapes and dtypes agree one to one and all values are finite.

    Args:
        module: Receives the weights.
        tensors: Weights by the names of `module.state_dict()`.
        name: Name of the module for the error message.

    Raises:
        BadCheckpoint: If tensors are missing, unexpected, of another shape or dtype, or not finite; lists all of them.
    """
    check_fit(module, {key: kind_of(tensor.shape, tensor.dtype) for key, tensor in tensors.items()}, name)
    check_finite(tensors, name)
    module.load_state_dict(dict(tensors), strict=True)


def check_fit(module: nn.Module, kinds: Mapping[str, str], name: str) -> None:
    """Compare the tensors of a module with those of a file; the module may be on the meta device.

    Args:
        module: The module for the tensors.
        kinds: Shape and dtype of each tensor, as `kind_of` formats them.
        name: Name of the module for the error message.

    Raises:
        BadCheckpoint: If tensors are missing, unexpected or of another shape or dtype; lists all of them.
    """
    wanted = {key: kind_of(tensor.shape, tensor.dtype) for key, tensor in module.state_dict().items()}
    faults = {
        "missing": sorted(wanted.keys() - kinds.keys()),
        "unexpected": sorted(kinds.keys() - wanted.keys()),
        "of another shape or dtype": [
            f"{key} (expected {wanted[key]}, got {kinds[key]})"
            for key in sorted(wanted.keys() & kinds.keys())
            if wanted[key] != kinds[key]
        ],
    }
    found = [f"{len(names)} {fault}: {_some(names)}" for fault, names in faults.items() if names]
    if found:
        raise BadCheckpoint(f"these weights do not fit {name}: {'; '.join(found)}")


def check_finite(tensors: Mapping[str, Tensor], name: str) -> None:
    """Refuse weights that are not finite.

    Raises:
        BadCheckpoint: If some are NaN or infinite; names the tensors.
    """
    sick = sorted(key for key, tensor in tensors.items() if not is_finite(tensor))
    if sick:
        raise BadCheckpoint(
            f"the weights of {name} hold NaN or infinite numbers in {len(sick)} tensors: {_some(sick)}; the training "
            "diverged or the file was altered: use an earlier checkpoint"
        )


def load_part(module: nn.Module, tensors: Mapping[str, Tensor], part: str, name: str) -> None:
    """Load the weights of one part of a larger network into a module; all of the module must be covered.

    Args:
        module: Receives the weights.
        tensors: Weights of the larger network.
        part: Name of the part, e.g. "encoder".
        name: Name of the module for messages.

    Raises:
        BadCheckpoint: If the part's weights do not match the module one to one.
    """
    within = {key.removeprefix(f"{part}."): value for key, value in tensors.items() if key.startswith(f"{part}.")}
    if not within:
        parts = sorted({key.partition(".")[0] for key in tensors})
        raise BadCheckpoint(f"these weights have no part {part!r} for {name}; they have {', '.join(parts)}")
    load_strict(module, within, name)
    logger.info("%s: %d of %d tensors taken, all of it covered", name, len(within), len(tensors))


def kind_of(shape: Sequence[int], dtype: torch.dtype) -> str:
    """Shape and dtype as text."""
    return f"{tuple(shape)} {str(dtype).removeprefix('torch.')}"


def is_finite(tensor: Tensor) -> bool:
    """Whether all values of a tensor are finite; allocates nothing of its size."""
    if not tensor.is_floating_point() or not tensor.numel() or tensor.is_meta:
        return True
    numbers = tensor.float() if tensor.itemsize == 1 else tensor  # the kernels do not support 8-bit floats
    return all(bool(extreme.isfinite()) for extreme in torch.aminmax(numbers))


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - NUM_NAMES_SHOWN
    return ", ".join(names[:NUM_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
