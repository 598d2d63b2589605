"""The action argument of `step`: accepts the output of policies and agents."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def one_action(action: Any, shape: tuple[int, ...], *, task: str) -> NDArray[np.float64]:
    """One action `(A,)` as float64, from an array or tensor `(A,)`, or `(1, A)` as agents return it.

    Args:
        action: The action; a tensor may lie on any device.
        shape: `(A,)`.
        task: The name of the task, for the error message.

    Raises:
        ValueError: If it has another shape.
    """
    given = np.asarray(action.detach().cpu() if isinstance(action, torch.Tensor) else action, dtype=np.float64)
    if given.shape not in (shape, (1, *shape)):
        raise ValueError(f"an action of {task} has shape {shape} or {(1, *shape)}, got {given.shape}")
    return given.reshape(shape)
