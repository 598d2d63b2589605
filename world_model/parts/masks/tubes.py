"""Multi-block tube masks: rectangles of the image that are masked through the whole clip.

The masked tokens are the union of several blocks of one size; all others are visible. Released trainings use two kinds:
many small blocks ("short range") and a few large ones ("long range").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from jepa_mpc.types import Masks
from jepa_mpc.world_model.parts.masks.cutting import Chosen, first_tokens, whole_tubes

TRIES = 200
Range = tuple[float, float]
Block = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Tubes:
    """Tube masks: one block size per batch, positions per sample.

        times = max(1, int(T s_t));  area = int(h w s);  height = round sqrt(area r);  width = round sqrt(area / r)

    A sample without visible tokens is redrawn. Lists are truncated to the shortest of the batch by dropping random
    whole tubes.

    Args:
        grid: Times, rows and columns of the token grid.
        num_blocks: Blocks per sample.
        area: Smallest and largest share s of the image covered by a block.
        duration: Smallest and largest share s_t of the clip.
        aspect: Smallest and largest ratio r of height to width.
        seen_duration: Share of the clip, from its start, in which tokens are visible.
        most_seen: Maximum number of visible tokens per sample, or None.

    Raises:
        ValueError: If a size is not positive, a range is empty, or blocks could mask everything.

    Reference: Bardes et al. 2024, arXiv:2404.08471, section 3.2; Assran et al. 2025, arXiv:2506.09985.
    """

    grid: Block
    num_blocks: int
    area: Range
    duration: Range = (1.0, 1.0)
    aspect: Range = (0.75, 1.5)
    seen_duration: float = 1.0
    most_seen: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.seen_duration <= 1 or (self.most_seen is not None and self.most_seen < 1):
            raise ValueError(
                f"need 0 < seen_duration <= 1 and most_seen above 0, got {self.seen_duration}, {self.most_seen}"
            )
        if len(self.grid) != 3 or min(self.grid) < 1 or self.num_blocks < 1:
            raise ValueError(
                f"need a grid (times, rows, columns) and at least one block, got {self.grid}, {self.num_blocks}"
            )
        for name in ("area", "duration", "aspect"):
            low, high = getattr(self, name)
            if not 0 < low <= high or (name != "aspect" and high > 1):
                raise ValueError(f"{name} must be a range (low, high) above 0, shares at most 1, got {(low, high)}")

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """Masks for `batch` samples: context `B K`, targets `B 1 L`.

        Raises:
            ValueError: If repeated draws mask everything.
        """
        size = self._drawn_size(generator)
        hidden = self._hidden(batch, size, generator)
        for _ in range(TRIES):
            full = hidden.flatten(1).all(dim=1)
            if not bool(full.any()):
                seen = whole_tubes(~hidden, generator, most=self.most_seen)
                return Masks(context=seen, targets=whole_tubes(hidden, generator)[:, None])
            hidden = torch.where(full[:, None, None, None], self._hidden(batch, size, generator), hidden)
        raise _nothing_seen(self)

    def block_size(self, shares: Tensor) -> Block:
        """Times, rows and columns of a block for three draws in [0, 1): duration, area, aspect."""
        times, rows, columns = self.grid
        duration, area, aspect = (
            low + draw * (high - low)
            for draw, (low, high) in zip(shares.tolist(), (self.duration, self.area, self.aspect), strict=True)
        )
        tokens = int(rows * columns * area)
        height, width = round(math.sqrt(tokens * aspect)), round(math.sqrt(tokens / aspect))
        return max(1, int(times * duration)), min(max(height, 1), rows), min(max(width, 1), columns)

    def _drawn_size(self, generator: Generator) -> Block:
        for _ in range(TRIES):
            size = self.block_size(torch.rand(3, generator=generator, device=generator.device))
            if size != self.grid:
                return size
        raise _nothing_seen(self)

    def _hidden(self, batch: int, size: Block, generator: Generator) -> Chosen:
        """Unions of randomly placed blocks, bool `B T h w`."""
        device = generator.device
        inside = []
        for length, whole in zip(size, self.grid, strict=True):
            start = torch.randint(whole - length + 1, (batch, self.num_blocks, 1), generator=generator, device=device)
            place = torch.arange(whole, device=device)
            inside.append((place >= start) & (place < start + length))  # (B, blocks, axis)
        time, row, column = inside
        hidden = (time[..., :, None, None] & row[..., None, :, None] & column[..., None, None, :]).any(dim=1)
        hidden[:, self._last_seen() :] = True
        return hidden

    def _last_seen(self) -> int:
        return max(1, int(self.grid[0] * self.seen_duration))


@dataclass(frozen=True, kw_only=True)
class LegacyTubes(Tubes):
    """The masks of the published trainings, reproduced draw for draw.

    Block sizes come from a stream seeded with the call index, positions from the passed one, block by block (row,
    column, time); lists are truncated at the end, so late times are rarely visible. Use it to reproduce a published
    training, and `Tubes` otherwise.
    """

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """Masks of a call with a random index."""
        call = torch.randint(2**31, (), generator=generator, device=generator.device)
        return self.at(int(call), batch, generator=generator)

    def at(self, call: int, batch: int, *, generator: Generator) -> Masks:
        """Masks of the call with this index.

        Raises:
            ValueError: If repeated draws mask everything.
        """
        sizes = torch.Generator().manual_seed(call)
        size = self.block_size(torch.cat([torch.rand(1, generator=sizes) for _ in range(3)]))
        hidden = torch.stack([self._one(size, generator) for _ in range(batch)])
        return Masks(context=first_tokens(~hidden, most=self.most_seen), targets=first_tokens(hidden)[:, None])

    def _one(self, size: Block, generator: Generator) -> Tensor:
        for _ in range(TRIES):
            hidden = torch.zeros(self.grid, dtype=torch.bool, device=generator.device)
            for _ in range(self.num_blocks):
                starts = [self._start(axis, size, generator) for axis in (1, 2, 0)]  # row, column, time
                (row, column, time), (times, rows, columns) = starts, size
                hidden[time : time + times, row : row + rows, column : column + columns] = True
            hidden[self._last_seen() :] = True
            if not bool(hidden.all()):
                return hidden
        raise _nothing_seen(self)

    def _start(self, axis: int, size: Block, generator: Generator) -> int:
        room = self.grid[axis] - size[axis] + 1
        return int(torch.randint(room, (1,), generator=generator, device=generator.device))


def _nothing_seen(masks: Tubes) -> ValueError:
    return ValueError(
        f"{masks.num_blocks} blocks over {masks.area[0]:.0%} to {masks.area[1]:.0%} of a grid of {masks.grid} mask "
        "everything: use fewer or smaller blocks, or a finer grid"
    )
