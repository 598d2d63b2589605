"""How a causal predictor knows which frame a token belongs to; each scheme is a part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.positions import Rotary

Turn = Callable[[Tensor], Tensor]


class FramePositions(Protocol):
    """Marks tokens with their frame: by adding to them, or by turning queries and keys.

    Attributes:
        window: Frames that one prediction may look back on, its own included.
        restarts: Whether frames are numbered anew in each window; then keys and values cannot be kept.
    """

    window: int
    restarts: bool

    def embed(self, x: Tensor, *, first: int = 0) -> Tensor:
        """Mark states `(G, T, N, D)` of consecutive frames, the first of which stands at place `first`."""

    def turner(self, first: int, num_frames: int, num_tokens: int) -> Turn:
        """What to do with queries and keys `(G, heads, T N, head_dim)` of the frames from number `first` on."""


class WindowPositions(nn.Module):
    """A learned vector per place in the window, drawn from N(0, 1); the numbering restarts with each window.

    Args:
        window: Number of frames.
        width: Width D of the states.
        num_tokens: Tokens N of one state.
        room: Channels that are added to the states, for what is concatenated to them later.
    """

    restarts = True

    def __init__(self, *, window: int, width: int, num_tokens: int = 1, room: int = 0) -> None:
        super().__init__()
        self.window, self.room = window, room
        self.table = nn.Parameter(torch.empty(1, window, num_tokens, width + room))
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Draw the table."""
        nn.init.normal_(self.table, generator=generator)

    def embed(self, x: Tensor, *, first: int = 0) -> Tensor:
        """Add the table, from place `first` of the window on, to states `(G, T, N, D)` with their room.

        Raises:
            ValueError: If there are more frames than the window holds.
        """
        end = first + x.shape[1]
        if end > self.window:
            raise ValueError(f"this predictor sees at most {self.window} frames at once, got {end}")
        return nn.functional.pad(x, (0, self.room)) + self.table[:, first:end]

    def turner(self, first: int, num_frames: int, num_tokens: int) -> Turn:
        """Queries and keys stay as they are."""
        return _stay


class RotaryPositions(nn.Module):
    """Rotations by the absolute number of the frame: attention sees time differences alone, so keys and values keep.

    Args:
        window: Frames that one prediction may look back on.
        head_dim: Width of one attention head.
        width: Width D of the states.
        num_tokens: Tokens N of one state; more than one get a learned vector each.
        base: Slowest wave length, in frames, roughly.
    """

    restarts = False

    def __init__(self, *, window: int, head_dim: int, width: int, num_tokens: int = 1, base: float = 100.0) -> None:
        super().__init__()
        self.window = window
        self.rotary = Rotary(head_dim, base=base)
        self.tokens = nn.Parameter(torch.empty(1, 1, num_tokens, width)) if num_tokens > 1 else None
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Draw the vectors of the tokens."""
        if self.tokens is not None:
            nn.init.normal_(self.tokens, std=0.2, generator=generator)

    def embed(self, x: Tensor, *, first: int = 0) -> Tensor:
        """Tell the tokens of a state `(G, T, N, D)` apart."""
        return x if self.tokens is None else x + self.tokens

    def turner(self, first: int, num_frames: int, num_tokens: int) -> Turn:
        """Turn by the frame's number."""
        places = torch.arange(first, first + num_frames, device=self.rotary.frequencies.device)
        table = self.rotary.table(places.repeat_interleave(num_tokens))
        return lambda x: self.rotary.turn(x, table)


def _stay(x: Tensor) -> Tensor:
    return x
