"""Where a token stands: learned tables, sine-cosine tables and rotations."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sincos_1d(places: Tensor, width: int, *, base: float = 10_000.0) -> Tensor:
    """Sines, then cosines, of each place times a falling series of frequencies.

    Args:
        places: `(L)`.
        width: Even width of the result.
        base: Ratio between the highest and the lowest frequency.

    Returns:
        `(L, width)`.

    Raises:
        ValueError: If `width` is odd.
    """
    if width % 2:
        raise ValueError(f"a sine-cosine table needs an even width, got {width}")
    frequencies = base ** (-torch.arange(width // 2, device=places.device) / (width / 2))
    angles = places[:, None].to(frequencies.dtype) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def sincos_2d(rows: int, columns: int, width: int) -> Tensor:
    """A table `(rows columns, width)` for a grid, row-major: half of the width tells the row, half the column.

    Raises:
        ValueError: If `width` is not a multiple of four.
    """
    if width % 4:
        raise ValueError(f"a two-dimensional sine-cosine table needs a width that 4 divides, got {width}")
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.cat([sincos_1d(row.flatten(), width // 2), sincos_1d(column.flatten(), width // 2)], dim=-1)


def resize_grid(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resize a table of grid positions bicubically (pixel corners not aligned, no anti-aliasing).

    Args:
        table: `(1, rows columns, width)`, row-major.
        old: Rows and columns of the table.
        new: Rows and columns wanted; the same size gives the table back untouched.
    """
    if old == new:
        return table
    grid = table.unflatten(1, old).permute(0, 3, 1, 2)  # (1, width, rows, columns)
    grid = F.interpolate(grid, size=new, mode="bicubic", align_corners=False, antialias=False)
    return grid.flatten(2).transpose(1, 2)


class Rotary(nn.Module):
    """Turn channel pairs of queries and keys by angles that grow with the place: attention sees differences only.

        (x1, x2) -> (x1 cos - x2 sin, x1 sin + x2 cos)       with angle = place / base^(2i / head_dim)

    Args:
        head_dim: Even width of one head.
        base: Ratio between the fastest and the slowest rotation, roughly.

    Raises:
        ValueError: If `head_dim` is odd.

    Reference: Su et al. 2021, arXiv:2104.09864.
    """

    frequencies: Tensor

    def __init__(self, head_dim: int, *, base: float = 10_000.0) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"rotary positions need an even head width, got {head_dim}")
        self.register_buffer("frequencies", base ** (-torch.arange(0, head_dim, 2) / head_dim), persistent=False)

    def table(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for places `(L)`: two tensors `(L, head_dim / 2)`."""
        angles = places[:, None] * self.frequencies
        return angles.cos(), angles.sin()

    @staticmethod
    def turn(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        """Turn `(..., L, head_dim)` by a table of `table()`."""
        cosine, sine = (part.to(x.dtype) for part in table)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
