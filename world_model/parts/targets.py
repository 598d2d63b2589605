"""Targets of predictions."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from jepa_mpc.types import State

Momentum = Callable[[float], float]
Look = Callable[[nn.Module, Any], State]


class SharedTarget(nn.Module):
    """The online encoder's own output, with its gradient: no copy, no stop-gradient."""

    def forward(self, x: Tensor, online: Tensor | None) -> State:
        """Return `online`.

        Raises:
            ValueError: If there is no online encoding of x.
        """
        if online is None:
            raise ValueError("a shared target needs the encoder's own view of the whole input")
        return online

    def update(self, encoder: nn.Module, progress: float) -> None:
        """Does nothing."""


class FrozenTarget(nn.Module):
    """A copy of an encoder that never changes.

    Args:
        encoder: The encoder to copy.
        finish: Applied to its tokens before comparison (such as a layer norm without weights); by default none.
        look: How the copy is called on x (for the output of an inner block, for example); by default directly.
    """

    def __init__(self, encoder: nn.Module, *, finish: nn.Module | None = None, look: Look | None = None) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(False).eval()
        self.finish = finish or nn.Identity()
        self.look = look or _called

    def train(self, mode: bool = True) -> FrozenTarget:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x: Any, online: Tensor | None) -> State:
        """Encode x with the copy."""
        return self.finish(self.look(self.encoder, x))

    def update(self, encoder: nn.Module, progress: float) -> None:
        """Does nothing."""


class EMATarget(FrozenTarget):
    """An exponential moving average (EMA) of the encoder.

        target = m * target + (1 - m) * encoder           after each step; buffers are copied

    Args:
        encoder: The encoder to follow.
        momentum: m as a function of the training progress in [0, 1].
        finish: As in a frozen target.
        look: As in a frozen target.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        momentum: Momentum | None = None,
        finish: nn.Module | None = None,
        look: Look | None = None,
    ) -> None:
        super().__init__(encoder, finish=finish, look=look)
        self.momentum = momentum or linear_momentum()

    @torch.no_grad()
    def update(self, encoder: nn.Module, progress: float) -> None:
        """Move towards the encoder."""
        step = 1 - self.momentum(progress)
        for mine, theirs in zip(self.encoder.parameters(), encoder.parameters(), strict=True):
            mine.lerp_(theirs, step)
        for kept, new in zip(self.encoder.buffers(), encoder.buffers(), strict=True):
            kept.copy_(new)


def linear_momentum(start: float = 0.996, end: float = 1.0) -> Momentum:
    """A momentum that rises linearly from `start` to `end` over the training.

    Raises:
        ValueError: If one of them is not between 0 and 1.
    """
    _check_momentum(start, end)
    return lambda progress: start + (end - start) * progress


def cosine_momentum(start: float = 0.996, end: float = 1.0) -> Momentum:
    """A momentum that rises from `start` to `end` along half a cosine over the training.

    Raises:
        ValueError: If one of them is not between 0 and 1.
    """
    _check_momentum(start, end)
    return lambda progress: end - (end - start) * (1 + math.cos(math.pi * progress)) / 2


def constant_momentum(value: float = 0.99925) -> Momentum:
    """A constant momentum; the default is that of V-JEPA 2 (arXiv:2506.09985).

    Raises:
        ValueError: If it is not between 0 and 1.
    """
    _check_momentum(value)
    return lambda progress: value


def _check_momentum(*values: float) -> None:
    if not all(0 <= value <= 1 for value in values):
        raise ValueError(f"a momentum lies between 0 and 1, got {', '.join(map(str, values))}")


def _called(encoder: nn.Module, x: Any) -> State:
    state: State = encoder(x)
    return state
