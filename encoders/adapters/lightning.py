"""Reads Lightning checkpoints: only the weights."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa_mpc.encoders.adapters.plain import UNREADABLE, is_table, read_plain
from jepa_mpc.errors import BadCheckpoint


class Inert:
    """Placeholder for objects of foreign classes in a checkpoint: it stores nothing and does nothing."""

    def __new__(cls, *_: object, **__: object) -> Inert:
        """Accept any arguments."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""


def read_lightning(file: str | Path) -> dict[str, Tensor]:
    """The `state_dict` of a checkpoint. No code of the file is executed: foreign objects become placeholders.

    Args:
        file: A `.ckpt` file.

    Returns:
        Tensors by name, without the prefix of compilation (`_orig_mod.`).

    Raises:
        BadCheckpoint: If there is no such file, it is damaged, or it holds no `state_dict`.
    """
    path = Path(file)
    if not path.is_file():
        raise BadCheckpoint(f"there is no file {path}")
    with torch.serialization.safe_globals(_shells(path)):
        content = read_plain(path)
    weights = content.get("state_dict")
    if weights is None or not is_table(weights):
        held = ", ".join(map(str, list(content)[:6])) or "nothing"
        raise BadCheckpoint(f"{path} is not a Lightning checkpoint: expected a state_dict of tensors, got {held}")
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in weights.items()}


def _shells(path: Path) -> list[Any]:
    """A placeholder class for every name in the file that `torch.load` would refuse; none if it is damaged."""
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (pickle.UnpicklingError, *UNREADABLE):
        return []
    return [(type("Inert", (Inert,), {}), name) for name in foreign]
