"""Token pyramids: each level has a quarter of the tokens of the level below, with one common numbering."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_mpc.types import State

Size = tuple[int, int]


class TokenPyramid(nn.Module):
    """Append coarser levels to the tokens of a grid: a cell is the mean of its 2 x 2 cells in the level below.

        z_0 = tokens;   z_l[cell] = mean of z_0 over the 2^l x 2^l tokens of the cell that exist

    Tokens of level l are numbered from `starts[l]`, row by row. Border cells of a grid that is not divisible by 2^l are
    means of fewer tokens.

    Args:
        grid: Rows and columns of the finest level.
        levels: Number of levels, including the finest.

    Raises:
        ValueError: If a level would have a single cell only, or `levels` is less than 1.
    """

    parents: Tensor

    def __init__(self, grid: Size, *, levels: int) -> None:
        super().__init__()
        if levels < 1 or min(grid) <= 2 ** (levels - 1):
            raise ValueError(
                f"{levels} levels do not fit a grid of {grid[0]} x {grid[1]} tokens: the coarsest needs 2 x 2 cells"
            )
        self.grids = tuple(_coarser(grid, level) for level in range(levels))
        sizes = [rows * columns for rows, columns in self.grids]
        self.starts = tuple(sum(sizes[:level]) for level in range(levels))
        self.num_tokens = sum(sizes)
        self.register_buffer("parents", self._parents(), persistent=False)

    def forward(self, tokens: State) -> State:
        """Tokens `(B, h w, D)` of the finest level to those of all levels `(B, num_tokens, D)`."""
        return torch.cat([self.level(tokens, index) for index in range(len(self.grids))], dim=1)

    def level(self, tokens: State, index: int) -> State:
        """Tokens `(B, h w, D)` of the finest level to those of one level.

        Raises:
            ValueError: If the number of tokens is not that of the grid.
        """
        rows, columns = self.grids[0]
        if tokens.shape[1] != rows * columns:
            raise ValueError(
                f"the levels are made for {rows} x {columns} tokens, the input has {tokens.shape[1]}: set "
                "++system.image and ++system.frames to those of the data"
            )
        if index == 0:
            return tokens
        image = tokens.transpose(1, 2).unflatten(2, self.grids[0])
        pooled = F.avg_pool2d(image, 2**index, ceil_mode=True, count_include_pad=False)
        return pooled.flatten(2).transpose(1, 2)

    def cells(self, index: int) -> Tensor:
        """The cell of a level (indexed within it) that contains each token of the finest level, `(h w)`."""
        rows, columns = self.grids[0]
        row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        return ((row >> index) * self.grids[index][1] + (column >> index)).flatten()

    def level_of(self) -> Tensor:
        """The level of each token, `(num_tokens)`."""
        return torch.cat([torch.full((rows * columns,), index) for index, (rows, columns) in enumerate(self.grids)])

    def _parents(self) -> Tensor:
        """The parent cell of each token; cells of the coarsest level are their own parent."""
        found = []
        for index, (rows, columns) in enumerate(self.grids):
            above = min(index + 1, len(self.grids) - 1)
            row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            step = above - index
            found.append(self.starts[above] + ((row >> step) * self.grids[above][1] + (column >> step)).flatten())
        return torch.cat(found)


def _coarser(grid: Size, level: int) -> Size:
    rows, columns = (-(-side // 2**level) for side in grid)
    return rows, columns
