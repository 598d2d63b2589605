"""Reading checkpoints of Lightning: the weights alone, whatever else the trainer wrote beside them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa_mpc.encoders.adapters.plain import UNREADABLE
from jepa_mpc.errors import BadCheckpoint


class Inert:
    """Stands for an object of a foreign class in a checkpoint: it keeps nothing and does nothing."""

    def __new__(cls, *_: object, **__: object) -> Inert:
        """Take any arguments."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Forget the state."""


def read_lightning(file: str | Path) -> dict[str, Tensor]:
    """The `state_dict` of a checkpoint. No code of the file is run: foreign objects beside it become empty shells.

    Args:
        file: A `.ckpt` file.

    Returns:
        Names without what compilation puts in between (`_orig_mod.`).

    Raises:
        BadCheckpoint: If there is no such file, it is damaged, or it holds no `state_dict`.
    """
    path = Path(file)
    if not path.is_file():
        raise BadCheckpoint(f"there is no file {path}")
    try:
        content = _content(path)
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise BadCheckpoint(f"{path} cannot be read as weights (cut short? download it again): {reason}") from error
    weights = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not weights or not all(isinstance(x, Tensor) for x in weights.values()):
        held = ", ".join(map(str, list(content)[:6])) if isinstance(content, Mapping) else type(content).__name__
        raise BadCheckpoint(f"{path} is no checkpoint of Lightning: expected a state_dict of tensors, it holds {held}")
    return {str(name).replace("_orig_mod.", ""): x for name, x in weights.items()}


def _content(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        return torch.load(path, map_location="cpu", weights_only=True)
    shells: list[Any] = [(type("Inert", (Inert,), {}), name) for name in _foreign(path)]
    with ExitStack() as stack:
        stack.enter_context(torch.serialization.safe_globals(shells))
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _foreign(path: Path) -> list[str]:
    """Dotted names in the file that `torch.load` would refuse."""
    return torch.serialization.get_unsafe_globals_in_checkpoint(path)
