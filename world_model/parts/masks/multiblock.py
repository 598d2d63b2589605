"""Multi-block image masks: one large visible block, from which a few small target blocks are removed.

The targets of a sample may overlap each other; they are removed from the visible block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from jepa_mpc.types import Masks
from jepa_mpc.world_model.parts.masks.cutting import whole_tubes

TRIES = 200
PATIENCE = 20
"""Failures after which the published sampler reveals one more target."""

Range = tuple[float, float]
Size = tuple[int, int]
Draws = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class MultiBlock:
    """Multi-block masks: one block size per batch, positions per sample.

        area = int(h w s);  height = round sqrt(area r);  width = round sqrt(area / r)       s, r drawn independently
        visible = one block of s from `context_area`, r = 1, without the union of the targets

    All positions where a block fits are equally likely. Lists of visible tokens are truncated to the shortest of the
    batch by dropping random tokens; a sample with fewer than `least_seen` is redrawn.

    Args:
        grid: Rows and columns of the token grid.
        num_targets: Target blocks per sample.
        target_area: Smallest and largest share s of the image covered by a target.
        context_area: The same for the visible block.
        aspect: Smallest and largest ratio r of height to width of a target.
        least_seen: Minimum number of visible tokens per sample.

    Raises:
        ValueError: If a number is out of range.

    Reference: Assran et al. 2023, arXiv:2301.08243, section 3.
    """

    grid: Size
    num_targets: int = 4
    target_area: Range = (0.15, 0.2)
    context_area: Range = (0.85, 1.0)
    aspect: Range = (0.75, 1.5)
    least_seen: int = 10

    def __post_init__(self) -> None:
        if len(self.grid) != 2 or min(self.grid) < 2 or self.num_targets < 1 or self.least_seen < 1:
            raise ValueError(
                "need a grid (rows, columns) of at least 2 x 2, one target block and one visible token, got "
                f"{tuple(self.grid)}, {self.num_targets}, {self.least_seen}"
            )
        for name in ("target_area", "context_area", "aspect"):
            low, high = getattr(self, name)
            if not 0 < low <= high or (name != "aspect" and high > 1):
                raise ValueError(f"{name} must be a range (low, high) above 0, shares at most 1, got {(low, high)}")

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """Masks for `batch` samples: context `B K`, targets `B M L`.

        Raises:
            ValueError: If repeated draws leave too few visible tokens.
        """
        draws = torch.rand(3, generator=generator, device=generator.device).tolist()
        target = self.block_size(self.target_area, self.aspect, (draws[0], draws[1]))
        context = self.block_size(self.context_area, (1.0, 1.0), (draws[2], 0.0))
        blocks, seen = self._places(batch, target, context, generator)
        for _ in range(TRIES):
            few = seen.flatten(1).sum(dim=1) < self.least_seen
            if not bool(few.any()):
                kept = whole_tubes(seen[:, None], generator)
                return Masks(context=kept, targets=blocks.flatten(2).nonzero()[:, 2].view(*blocks.shape[:2], -1))
            again, others = self._places(batch, target, context, generator)
            blocks = torch.where(few[:, None, None, None], again, blocks)
            seen = torch.where(few[:, None, None], others, seen)
        raise self._too_little()

    def block_size(self, area: Range, aspect: Range, draws: Draws) -> Size:
        """Rows and columns of a block for two draws in [0, 1): area and aspect."""
        height, width = sides(self.grid, area, aspect, draws)
        return min(max(height, 1), self.grid[0]), min(max(width, 1), self.grid[1])

    def _places(self, batch: int, target: Size, context: Size, generator: Generator) -> tuple[Tensor, Tensor]:
        """Target blocks `B M h w` and visible tokens `B h w`, bool."""
        blocks = self._blocks((batch, self.num_targets), target, generator)
        return blocks, self._blocks((batch,), context, generator) & ~blocks.any(dim=1)

    def _blocks(self, shape: tuple[int, ...], size: Size, generator: Generator) -> Tensor:
        inside = []
        for length, whole in zip(size, self.grid, strict=True):
            start = torch.randint(whole - length + 1, (*shape, 1), generator=generator, device=generator.device)
            place = torch.arange(whole, device=generator.device)
            inside.append((place >= start) & (place < start + length))  # (*shape, axis)
        return inside[0][..., :, None] & inside[1][..., None, :]

    def _too_little(self) -> ValueError:
        return ValueError(
            f"{self.num_targets} targets of {self.target_area[0]:.0%} to {self.target_area[1]:.0%} leave fewer than "
            f"{self.least_seen} visible tokens of a grid of {self.grid[0]} x {self.grid[1]}: use fewer or smaller "
            "targets, a smaller least_seen, or a finer grid"
        )


@dataclass(frozen=True, kw_only=True)
class LegacyMultiBlock(MultiBlock):
    """The masks of the published training, reproduced draw for draw.

    One draw per batch gives both area and aspect, so large targets are tall. Blocks never reach the last row and
    column. Block sizes come from a stream seeded with the call index, positions from the passed one. A sample with at
    most `least_seen` visible tokens may, after `PATIENCE` failures, see one more target each time, so visible and
    masked tokens may overlap. Lists are truncated at the end: the bottom of the image is rarely visible in large
    batches. Use it to reproduce a published training, and `MultiBlock` otherwise.
    """

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """Masks of a call with a random index."""
        call = int(torch.randint(2**31, (), generator=generator, device=generator.device))
        contexts, targets = self.at(call, batch, generator=generator)
        return Masks(context=contexts[:, 0], targets=targets)

    def at(self, call: int, batch: int, *, generator: Generator, num_contexts: int = 1) -> tuple[Tensor, Tensor]:
        """Visible tokens `B E K` (several visible blocks on request) and targets `B M L` of the call with this index.

        Raises:
            ValueError: If no block can leave enough visible tokens.
        """
        target, context = self.sizes(call)
        if target[0] * target[1] <= self.least_seen or context[0] * context[1] <= self.least_seen:
            raise self._too_little()
        targets, contexts = [], []
        for _ in range(batch):
            blocks = [self._block(target, generator) for _ in range(self.num_targets)]
            targets += [block.flatten().nonzero()[:, 0] for block in blocks]
            contexts += [self._seen(context, blocks, generator) for _ in range(num_contexts)]
        shortest = min(len(kept) for kept in contexts)
        seen = torch.stack([kept[:shortest] for kept in contexts])
        return seen.view(batch, num_contexts, -1), torch.stack(targets).view(batch, self.num_targets, -1)

    def sizes(self, call: int) -> tuple[Size, Size]:
        """Rows and columns of the targets and of the visible block in the call with this index."""
        stream = torch.Generator().manual_seed(call)
        first, second = (torch.rand(1, generator=stream).item() for _ in range(2))
        target = self.block_size(self.target_area, self.aspect, (first, first))
        return target, self.block_size(self.context_area, (1.0, 1.0), (second, second))

    def block_size(self, area: Range, aspect: Range, draws: Draws) -> Size:
        """Rows and columns of a block; smaller than the grid."""
        height, width = sides(self.grid, area, aspect, draws)
        return min(height, self.grid[0] - 1), min(width, self.grid[1] - 1)

    def _block(self, size: Size, generator: Generator) -> Tensor:
        (height, width), (rows, columns) = size, self.grid
        top, left = (
            int(torch.randint(0, room, (1,), generator=generator, device=generator.device))
            for room in (rows - height, columns - width)
        )
        chosen = torch.zeros(rows, columns, dtype=torch.bool)
        chosen[top : top + height, left : left + width] = True
        return chosen

    def _seen(self, size: Size, targets: list[Tensor], generator: Generator) -> Tensor:
        for spared in range(self.num_targets + 1):
            hidden = targets[: self.num_targets - spared]
            for _ in range(PATIENCE):
                chosen = self._block(size, generator)
                for block in hidden:
                    chosen = chosen & ~block
                kept = chosen.flatten().nonzero()[:, 0]
                if len(kept) > self.least_seen:
                    return kept
        raise self._too_little()


def sides(grid: Size, area: Range, aspect: Range, draws: Draws) -> Size:
    """Height and width of a block before it is limited to the grid."""
    share, ratio = (low + draw * (high - low) for draw, (low, high) in zip(draws, (area, aspect), strict=True))
    tokens = int(grid[0] * grid[1] * share)
    return round(math.sqrt(tokens * ratio)), round(math.sqrt(tokens / ratio))
