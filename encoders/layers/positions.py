"""Positional embeddings: learned tables, sine-cosine tables and rotary positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pairing = Literal["tiled", "interleaved"]


def sincos_1d(places: Tensor, width: int, *, base: float = 10_000.0) -> Tensor:
    """Sines, then cosines, of each position times descending frequencies.

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
    frequencies = base ** (-torch.arange(width // 2, device=places.device) / (width / 2))
    angles = places[:, None].to(frequencies.dtype) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def sincos_grid(sizes: Sequence[int], widths: Sequence[int]) -> Tensor:
    """A table for a grid whose last axis varies fastest: the embeddings of the axes concatenated in order.

    Args:
        sizes: Number of positions along each axis.
        widths: Even number of channels for each axis; 0 omits it.

    Returns:
        `(places, sum of widths)`.
    """
    grid = torch.meshgrid(*(torch.arange(size) for size in sizes), indexing="ij")
    parts = [sincos_1d(axis.flatten(), width) for axis, width in zip(grid, widths, strict=True) if width]
    return torch.cat(parts, dim=-1)


def sincos_2d(rows: int, columns: int, width: int) -> Tensor:
    """A table `(rows columns, width)` for a grid, row-major: half of the channels for the row, half for the column.

    Raises:
        ValueError: If `width` is not a multiple of four.
    """
    if width % 4:
        raise ValueError(f"a two-dimensional sine-cosine table needs a width divisible by 4, got {width}")
    return sincos_grid((rows, columns), (width // 2, width // 2))


def resize_grid(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resize a table of grid positions bicubically (pixel corners not aligned, no anti-aliasing).

    Args:
        table: `(1, rows columns, width)`, row-major.
        old: Rows and columns of the table.
        new: Target rows and columns; the same size returns the table unchanged.
    """
    if old == new:
        return table
    grid = table.unflatten(1, old).permute(0, 3, 1, 2)  # (1, width, rows, columns)
    grid = F.interpolate(grid, size=new, mode="bicubic", align_corners=False, antialias=False)
    return grid.flatten(2).transpose(1, 2)


class Rotary(nn.Module):
    """Rotate channel pairs of queries and keys by angles proportional to the position: attention sees differences only.

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
        """Cosines and sines for positions `(L)`: two tensors `(L, head_dim / 2)`."""
        angles = places[:, None] * self.frequencies
        return angles.cos(), angles.sin()

    @staticmethod
    def turn(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        """Rotate `(..., L, head_dim)` by a table from `table()`."""
        cosine, sine = (part.to(x.dtype) for part in table)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


class Angles(NamedTuple):
    """Cosines and sines `... L head_dim` in float32, by which `rotate` rotates the channels of L tokens."""

    cosine: Tensor
    sine: Tensor


class AxialRotary:
    """Rotary positions in time, row and column: a third of a head's channels rotates with each coordinate.

        out_2i   = x_2i   cos(angle_2i)   - x_2i+1 sin(angle_2i)
        out_2i+1 = x_2i+1 cos(angle_2i+1) + x_2i   sin(angle_2i+1)       angle = coordinate * 10000^(-j / (m / 2))

    Each coordinate has m = 2 floor(floor(head_dim / 3) / 2) channels with m / 2 frequencies j; remaining channels never
    rotate. "interleaved" gives both channels of a pair the same frequency (j = c // 2), which is a rotation. "tiled"
    repeats the list of frequencies (j = c mod m / 2): not a rotation, but the weights of V-JEPA 2 were trained with it
    and need it. V-JEPA 2.1 is "interleaved".

    There are no buffers: angles are computed in float32 for any dtype and device of the network.

    Args:
        head_dim: Width of one head, at least 6.
        pairing: Assignment of frequencies to the channels of a pair.

    Raises:
        ValueError: If the head is too narrow for three coordinates, or `pairing` is unknown.

    Reference: Assran et al. 2025, arXiv:2506.09985, section 2.1; Su et al. 2021, arXiv:2104.09864.
    """

    def __init__(self, head_dim: int, *, pairing: Pairing) -> None:
        if pairing not in get_args(Pairing):
            raise ValueError(f"pairing must be one of {get_args(Pairing)}, got {pairing!r}")
        if head_dim < 6:
            raise ValueError(f"three coordinates need at least 6 channels per head, got {head_dim}: use fewer heads")
        self.head_dim = head_dim
        self.pairing = pairing
        self.segment = 2 * (head_dim // 3 // 2)

    def table(self, places: Tensor) -> Angles:
        """Angles of tokens at `places`.

        Args:
            places: `(..., L, 3)`: time, row and column of each token, integers or fractions. A coordinate of zero gives
                no rotation.

        Returns:
            Cosines and sines `(..., L, head_dim)` in float32.
        """
        half = self.segment // 2
        steps = torch.arange(half, device=places.device, dtype=torch.float32)
        frequencies = 1.0 / 10_000.0 ** (steps / half)
        spread = frequencies.repeat(2) if self.pairing == "tiled" else frequencies.repeat_interleave(2)
        angles = (places.float()[..., None] * spread).flatten(-2)  # (..., L, 3 m)
        angles = F.pad(angles, (0, self.head_dim - angles.shape[-1]))
        return Angles(angles.cos(), angles.sin())


def rotate(x: Tensor, angles: Angles) -> Tensor:
    """Rotate queries or keys by a table of `AxialRotary`.

    Args:
        x: `(B, heads, L, head_dim)`, any floating dtype; computed in at least float32.
        angles: For all samples `(L, head_dim)`, or for each `(B, L, head_dim)`.

    Returns:
        The same shape and dtype as `x`.
    """
    cosine, sine = (part.unsqueeze(-3) for part in angles)  # (1 or B, 1, L, head_dim)
    return (x * cosine + _quarter_turn(x) * sine).to(x.dtype)


def grid_places(
    frames: int, rows: int, columns: int, *, device: torch.device | str | None = None, span: int | None = None
) -> Tensor:
    """Time, row and column of every token of a grid, in the order time, row, column.

    Args:
        frames: Steps of time, in tokens.
        rows: Rows of tokens.
        columns: Columns of tokens.
        device: Device of the result.
        span: Stretch rows and columns so that each runs from 0 to span - 1 (a single row or column stays at 0); None
            uses integer indices.

    Returns:
        `(frames rows columns, 3)` in float32.
    """
    row, column = (_coordinate(size, span, device) for size in (rows, columns))
    grid = torch.meshgrid(_coordinate(frames, None, device), row, column, indexing="ij")
    return torch.stack(grid, dim=-1).flatten(0, 2)


def _coordinate(size: int, span: int | None, device: torch.device | str | None) -> Tensor:
    steps = torch.arange(size, device=device, dtype=torch.float32)
    return steps if span is None or size == 1 else steps * ((span - 1) / (size - 1))


def _quarter_turn(x: Tensor) -> Tensor:
    """`(x1, x2) -> (-x2, x1)` for neighbouring channels; a last unpaired channel becomes zero."""
    if x.shape[-1] % 2:
        return F.pad(_quarter_turn(x[..., :-1]), (0, 1))
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((-second, first), dim=-1).flatten(-2)
