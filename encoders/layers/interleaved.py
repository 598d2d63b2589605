"""Sine-cosine embeddings with alternating sines and cosines, as in action-chunk Transformers."""

from __future__ import annotations

import torch
from torch import Tensor

TURN = 2 * 3.14  # the published code rounds pi; trained weights need this value


def alternating(places: Tensor, width: int, *, base: float = 10_000.0) -> Tensor:
    """Alternating sine and cosine of each position: channels 2i and 2i + 1 share the frequency base^(-2i / width).

    Args:
        places: Positions `(L)`.
        width: Even width of the result.
        base: Ratio between the highest and the lowest frequency.

    Returns:
        `(L, width)`.

    Raises:
        ValueError: If `width` is odd.
    """
    if width % 2:
        raise ValueError(f"a sine-cosine table needs an even width, got {width}")
    exponents = torch.arange(0, width, 2, device=places.device) / width
    angles = places[:, None].to(torch.float32) / base**exponents
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def alternating_grid(rows: int, columns: int, width: int, *, device: torch.device | str | None = None) -> Tensor:
    """A table `(rows columns, width)`, row-major: the row in the first half of the channels, the column in the second.

    Each coordinate runs from one step to a full turn, for any grid size.

    Raises:
        ValueError: If `width` is not a multiple of four.
    """
    if width % 4:
        raise ValueError(f"a two-dimensional sine-cosine table needs a width divisible by 4, got {width}")
    row, column = (alternating(_turned(size, device), width // 2) for size in (rows, columns))
    table = torch.cat([row[:, None].expand(-1, columns, -1), column[None].expand(rows, -1, -1)], dim=-1)
    return table.flatten(0, 1)


def _turned(size: int, device: torch.device | str | None) -> Tensor:
    return torch.arange(1, size + 1, device=device) / (size + 1e-6) * TURN
