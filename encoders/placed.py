"""The Transformer of I-JEPA and V-JEPA (the first), with a fixed sine-cosine table of positional embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from jepa_mpc.encoders.layers.positions import resize_grid, sincos_grid
from jepa_mpc.encoders.video import VideoSizes, VideoTransformer
from jepa_mpc.errors import BadObservation
from jepa_mpc.types import State

Grid = tuple[int, int, int]
"""Times, rows and columns of tokens."""

Table = Callable[[Grid, int], Tensor]
"""Maps a grid and a width to the table of positional embeddings `(N, width)`."""

Resize = Callable[[Tensor, Grid, Grid], Tensor]
"""Maps a table `(1, N, width)`, its grid and a new grid to a table of the new grid."""


def column_first(grid: Grid, width: int) -> Tensor:
    """The table of I-JEPA: half the channels for the column, half for the row (arXiv:2301.08243, released code).

    Raises:
        ValueError: If there is more than one time, or the width is not divisible by four.
    """
    times, rows, columns = grid
    if times != 1 or width % 4:
        raise ValueError(f"this table is for images and widths divisible by 4, got {times} times, width {width}")
    row, column = sincos_grid((rows, columns), (width // 2, width // 2)).chunk(2, dim=-1)
    return torch.cat([column, row], dim=-1)


def even_thirds(grid: Grid, width: int) -> Tensor:
    """The table of the released V-JEPA: time, row and column have 2 ceil(width / 6) channels each, cut to the width."""
    each = 2 * -(-width // 6)
    return sincos_grid(grid, (each, each, each))[:, :width]


def time_half(grid: Grid, width: int) -> Tensor:
    """The other table of V-JEPA's code: half of the channels for the time, a quarter each for row and column.

    Raises:
        ValueError: If the width is not divisible by eight.
    """
    if width % 8:
        raise ValueError(f"half the width for time needs a width divisible by 8, got {width}")
    return sincos_grid(grid, (width // 2, width // 4, width // 4))


TABLES: dict[str, Table] = {"column_first": column_first, "even_thirds": even_thirds, "time_half": time_half}
"""Name -> table of positional embeddings."""


def bicubic(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """Resize the table of an image encoder as Hugging Face does; the authors' code fails on other sizes.

    Raises:
        BadObservation: If the number of times differs.
    """
    if old[0] != new[0]:
        raise BadObservation(f"this encoder takes single images: expected {old[0]} time, got {new[0]}")
    return resize_grid(table, old[1:], new[1:])


def trilinear(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """Resize the table of a video encoder in time, height and width, as V-JEPA's code does."""
    volume = table.unflatten(1, old).permute(0, 4, 1, 2, 3)  # (1, width, times, rows, columns)
    return F.interpolate(volume, size=new, mode="trilinear", align_corners=False).flatten(2).transpose(1, 2)


class PlacedTransformer(VideoTransformer):
    """Tubelets or patches, plus a fixed table of positional embeddings, pre-norm blocks, a last layer norm.

        tokens = blocks(patches(x) + table)[kept]          other tokens are dropped before the first block

    For inputs of another size than the table's, divisible into patches and tubelets, the table is resized.

    Args:
        sizes: All sizes; images have tubelets of one frame.
        grid: Times, rows and columns of the table.
        table: Makes the table.
        resize: Resizes it to another grid.
        recompute: See `VideoTransformer`.

    Reference: Assran et al. 2023, arXiv:2301.08243; Bardes et al. 2024, arXiv:2404.08471.
    """

    positions: Tensor

    def __init__(
        self, sizes: VideoSizes, *, grid: Grid, table: Table, resize: Resize = trilinear, recompute: bool = False
    ) -> None:
        super().__init__(sizes, pairing=None, recompute=recompute)
        self.native, self.resize = grid, resize
        self.register_buffer("positions", table(grid, sizes.width)[None])

    def placed(self, grid: Tensor) -> State:
        """Tokens `(B, N, D)` of a grid `(B, times, rows, columns, D)`, with positional embeddings."""
        times, rows, columns = grid.shape[1:4]
        wanted = (times, rows, columns)
        table = self.positions if wanted == self.native else self.resize(self.positions, self.native, wanted)
        return grid.flatten(1, 3) + table


@dataclass(frozen=True, kw_only=True)
class PlacedForm:
    """Builds a named encoder from its sizes.

    Args:
        image: Side of the images of its table in pixels, or height and width.
        frames: Frames per clip.
        table: Name of its table in `TABLES`.
    """

    image: int | tuple[int, int]
    frames: int = 1
    table: str = "column_first"

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the images, px."""
        return (self.image, self.image) if isinstance(self.image, int) else self.image

    def __call__(self, sizes: VideoSizes, *, recompute: bool = False) -> PlacedTransformer:
        """Build the network with random weights.

        Raises:
            ValueError: If the images of the table are not divisible into patches and tubelets.
        """
        height, width = self.sides
        if height % sizes.patch or width % sizes.patch or self.frames % sizes.tubelet:
            pixels = str(height) if height == width else f"{height} x {width}"
            raise ValueError(
                f"clips of {self.frames} frames of {pixels} px are not divisible into patches of {sizes.patch} px, "
                f"tubelets of {sizes.tubelet} frames"
            )
        return PlacedTransformer(
            sizes,
            grid=(self.frames // sizes.tubelet, height // sizes.patch, width // sizes.patch),
            table=TABLES[self.table],
            resize=bicubic if self.frames == 1 else trilinear,
            recompute=recompute,
        )
