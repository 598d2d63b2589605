"""Loads released weights into our networks: every key is accounted for; all errors are reported together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Required, TypedDict, Unpack

import torch
from torch import Tensor, nn

from jepa_mpc.encoders.release import Release
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.strict import check_finite

NUM_NAMES_SHOWN = 10


def fill(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    spelling: Callable[[str], str],
    title: str,
    dtype: torch.dtype | None = torch.float32,
    ignored: Collection[str] = (),
    copy: bool = True,
) -> None:
    """Load released weights into a module if, and only if, names and shapes match one to one.

    The module may be on the meta device.

    Args:
        module: Receives the weights; its saved buffers count as weights.
        tensors: Weights by their released names.
        spelling: Maps a name of `module.state_dict()` to the released one.
        title: Name of the module in the error message.
        dtype: Dtype of the weights; None keeps that of the file. Counters stay integers.
        ignored: Released names without a counterpart here.
        copy: Whether the weights are copies, and not the given tensors themselves where the dtype agrees.

    Raises:
        BadCheckpoint: If a name is missing, unexpected or of another shape (lists all three kinds), or a weight is NaN
            or infinite.
    """
    own = module.state_dict()
    names = {spelling(key): key for key in own}
    faults = {
        "missing": sorted(names.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - names.keys() - set(ignored)),
        "of another shape": [
            f"{name} (expected {tuple(own[key].shape)}, got {tuple(tensors[name].shape)})"
            for name, key in names.items()
            if name in tensors and tensors[name].shape != own[key].shape
        ],
    }
    found = [f"{len(keys)} {fault}: {_some(keys)}" for fault, keys in faults.items() if keys]
    if found:
        raise BadCheckpoint(f"these weights do not fit {title}: {'; '.join(found)}")
    check_finite({name: tensors[name] for name in names}, title)
    weights = {key: _as(tensors[name].detach(), dtype, copy=copy) for name, key in names.items()}
    module.load_state_dict(weights, strict=True, assign=True)


class How(TypedDict, total=False):
    """Options for building a network from released weights; see `filled`."""

    title: Required[str]
    dtype: torch.dtype | None
    recompute: bool
    copy: bool


def filled(described: Release, pour: Callable[..., None], **how: Unpack[How]) -> nn.Module:
    """The network of a file that was read, in evaluation mode.

    Args:
        described: Its structure and sizes.
        pour: Loads the weights of the file into a network: `fill` or similar, with the file's arguments bound.
        **how: `title`, its name in error messages; `dtype` of the weights, None keeps the file's (float32 by default);
            `recompute`, see `VideoTransformer`; `copy`, see `fill`.

    Raises:
        BadCheckpoint: If a weight is missing, unexpected or of another shape.
    """
    with torch.device("meta"):
        network = described(recompute=how.get("recompute", False))
    pour(network, title=how["title"], dtype=how.get("dtype", torch.float32), copy=how.get("copy", True))
    return network.eval()


def _as(tensor: Tensor, dtype: torch.dtype | None, *, copy: bool) -> Tensor:
    return tensor.to(dtype=dtype if tensor.is_floating_point() else None, copy=copy)


def _some(names: list[str]) -> str:
    more = len(names) - NUM_NAMES_SHOWN
    return ", ".join(names[:NUM_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
