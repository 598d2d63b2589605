"""Masks for the levels of a token pyramid: coarser levels have larger blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from jepa_mpc.encoders.levels import TokenPyramid
from jepa_mpc.types import Masks
from jepa_mpc.world_model.parts.masks.cutting import first_tokens, whole_tubes
from jepa_mpc.world_model.parts.masks.multiblock import MultiBlock, Range

ATTEMPTS = 10
"""Positions that the published sampler tries before it accepts overlap."""
SQUARE = (0.85, 1.15)


class LevelBlocks:
    """Multi-block masks in the cells of one level; the finest-level tokens outside of them are visible.

    Args:
        pyramid: Defines the cell indices.
        level: Level of the predicted cells.
        blocks: The sampler in the cells of the level; its grid is set here.

    Raises:
        ValueError: If the level does not exist.
    """

    def __init__(self, pyramid: TokenPyramid, level: int, blocks: MultiBlock) -> None:
        if not 0 <= level < len(pyramid.grids):
            raise ValueError(f"there is no level {level} of {len(pyramid.grids)}")
        self.pyramid, self.level = pyramid, level
        self.blocks = replace(blocks, grid=pyramid.grids[level])
        self.cells = pyramid.cells(level)

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """Masks: context `B K` of the finest level, targets `B M L` of this one, indexed as in the pyramid."""
        masks = self.blocks(batch, generator)
        rows, columns = self.blocks.grid
        at = masks.context.device
        seen = torch.zeros(batch, rows * columns, dtype=torch.bool, device=at).scatter(1, masks.context, True)
        tokens = seen[:, self.cells.to(at)].view(batch, 1, *self.pyramid.grids[0])
        return Masks(context=whole_tubes(tokens, generator), targets=masks.targets + self.pyramid.starts[self.level])


def doubling(pyramid: TokenPyramid, level: int) -> LevelBlocks:
    """Targets of 5 to 15 % at level 0; each next level has half as many, twice as large: 4, 2, 1, 1, ...

    Each level thus masks about the same share of the image.
    """
    area = (min(0.05 * 2**level, 0.4), min(0.15 * 2**level, 0.6))
    blocks = MultiBlock(grid=pyramid.grids[level], num_targets=max(4 >> level, 1), target_area=area, least_seen=1)
    return LevelBlocks(pyramid, level, blocks)


@dataclass(frozen=True, kw_only=True)
class LegacyLevelBlocks:
    """The masks of the public hierarchical code: all levels draw blocks of tokens, larger ones at coarser levels.

        area of a target in (0.05, 0.15) 2^l, of the visible block in c .. c + 0.15 with c = 0.6 + 0.3 l / (levels - 1)
        height = round sqrt(area / r);   width = round(height r);   r in 0.75 .. 1.5, nearly square at level 0

    Targets avoid each other for ten draws, then a block of a fixed size is accepted anywhere. Targets are removed from
    the visible block, which may end up empty.

    Args:
        grid: Rows and columns of the token grid.
        level: Level of the hierarchy, 0 is the finest.
        levels: Number of levels.
        num_targets: Target blocks per sample.
        area: Smallest and largest share of a target at level 0.
        aspect: Smallest and largest ratio r of width to height.
    """

    grid: tuple[int, int]
    level: int = 0
    levels: int = 3
    num_targets: int = 4
    area: Range = (0.05, 0.15)
    aspect: Range = (0.75, 1.5)

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """One target block of all masked tokens; lists are truncated to the shortest."""
        _, targets = self.draw(batch, generator)
        hidden = targets.any(dim=1).view(batch, 1, *self.grid)
        return Masks(context=first_tokens(~hidden), targets=first_tokens(hidden)[:, None])

    def draw(self, batch: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Visible tokens `B N` and each target `B M N`, bool."""
        samples = [self._sample(generator) for _ in range(batch)]
        targets = torch.stack([torch.stack(blocks) for blocks, _ in samples]).flatten(2)
        seen = torch.stack([context for _, context in samples]).flatten(1)
        return seen & ~targets.any(dim=1), targets

    def areas(self) -> tuple[Range, Range]:
        """Area shares of a target and of the visible block."""
        low, high = (min(0.95, bound * 2**self.level) for bound in self.area)
        context = 0.6 + 0.3 * self.level / max(1, self.levels - 1)
        return (low, high), (min(0.95, context), min(1.0, context + 0.15))

    def _sample(self, generator: Generator) -> tuple[list[Tensor], Tensor]:
        target, context = self.areas()
        taken = torch.zeros(self.grid, dtype=torch.bool)
        blocks = []
        for _ in range(self.num_targets):
            blocks.append(self._block(target, taken, generator))
            taken = taken | blocks[-1]
        return blocks, self._block(context, torch.zeros_like(taken), generator)

    def _block(self, area: Range, taken: Tensor, generator: Generator) -> Tensor:
        for _ in range(ATTEMPTS):
            block = self._at(self._size(area, generator), generator)
            if not bool((block & taken).any()):
                return block
        rows, columns = (max(1, side // (self.level + 2)) for side in self.grid)
        return self._at((rows, columns), generator)

    def _size(self, area: Range, generator: Generator) -> tuple[int, int]:
        low, high = self.aspect if self.level else (max(self.aspect[0], SQUARE[0]), min(self.aspect[1], SQUARE[1]))
        draws = torch.rand(2, dtype=torch.float64, generator=generator, device=generator.device).tolist()
        ratio = low + draws[1] * (high - low)
        tokens = self.grid[0] * self.grid[1] * (area[0] + draws[0] * (area[1] - area[0]))
        height = round((tokens / ratio) ** 0.5)
        width = round(height * ratio)
        return max(1, min(height, self.grid[0])), max(1, min(width, self.grid[1]))

    def _at(self, size: tuple[int, int], generator: Generator) -> Tensor:
        top, left = (
            int(torch.randint(whole - side + 1, (), generator=generator, device=generator.device))
            for side, whole in zip(size, self.grid, strict=True)
        )
        block = torch.zeros(self.grid, dtype=torch.bool)
        block[top : top + size[0], left : left + size[1]] = True
        return block
