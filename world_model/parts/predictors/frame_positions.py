"""Positional embeddings of frames in a causal predictor; each scheme is a part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.positions import Rotary

Turn = Callable[[Tensor], Tensor]


class FramePositions(Protocol):
    """Encodes the frame of a token: by addition, or by rotating queries and keys.

    Attributes:
        window: Maximum number of context frames of one prediction, including the current one.
        restarts: Whether positions restart in each window, which rules out key-value caching.
    """

    window: int
    restarts: bool

    def embed(self, x: Tensor, *, first: int = 0) -> Tensor:
        """Embed states `(G, T, N, D)` of consecutive frames, the first of which has position `first`."""

    def turner(self, first: int, num_frames: int, num_tokens: int) -> Turn:
        """The map of queries and keys `(G, heads, T N, head_dim)` for the frames from index `first` on."""


class WindowPositions(nn.Module):
    """A learned vector per position in the window, drawn from N(0, 1); positions restart with each window.

    Args:
        window: Number of frames.
        width: Width D of the states.
        num_tokens: Tokens N of one state.
        room: Channels appended to the states, for later concatenation.
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
        """Add the table, from position `first` of the window on, to states `(G, T, N, D)` with appended channels.

        Raises:
            ValueError: If there are more frames than the window holds.
        """
        end = first + x.shape[1]
        if end > self.window:
            raise ValueError(f"this predictor sees at most {self.window} frames at once, got {end}")
        return nn.functional.pad(x, (0, self.room)) + self.table[:, first:end]

    def turner(self, first: int, num_frames: int, num_tokens: int) -> Turn:
        """Leaves queries and keys unchanged."""
        return _stay


class RotaryPositions(nn.Module):
    """Rotary positions by the absolute frame index: attention depends on time differences only, so caching is exact.

    Args:
        window: Maximum number of context frames of one prediction.
        head_dim: Width of one attention head.
        width: Width D of the states.
        num_tokens: Tokens N of one state; several tokens get a learned vector each.
        base: Longest wavelength, in frames, approximately.
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
        """Add the token embeddings to states `(G, T, N, D)`."""
        return x if self.tokens is None else x + self.tokens

    def turner(self, first: int, num_frames: int, num_tokens: int) -> Turn:
        """Rotate by the frame index."""
        places = torch.arange(first, first + num_frames, device=self.rotary.frequencies.device)
        table = self.rotary.table(places.repeat_interleave(num_tokens))
        return lambda x: self.rotary.turn(x, table)


def _stay(x: Tensor) -> Tensor:
    return x
