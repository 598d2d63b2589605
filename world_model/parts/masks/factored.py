"""Masks over whole time steps of a clip, or over whole spatial positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator

from jepa_mpc.types import Masks

Share = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class MomentMask:
    """Masks whole time steps: every token of some times, the same number in each sample.

    Args:
        grid: Times, rows and columns of the tokens of a clip.
        share: Smallest and largest share of masked times; drawn once per batch.

    Raises:
        ValueError: If nothing could be masked, or nothing would be visible.
    """

    grid: tuple[int, int, int]
    share: Share = (0.25, 0.5)

    def __post_init__(self) -> None:
        _check(self.share, self.grid[0], "times")

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """Masks for `batch` clips: one target block of all masked tokens."""
        times, rows, columns = self.grid
        number = _number(self.share, times, generator)
        tokens = torch.arange(times * rows * columns).view(times, rows * columns)
        return _cut(tokens, number, batch, generator)


@dataclass(frozen=True, kw_only=True)
class PlaceMask:
    """Masks whole positions: the tokens of some cells at every time, the same number in each sample.

    Args:
        grid: Times, rows and columns of the tokens of a clip.
        share: Smallest and largest share of masked positions; drawn once per batch.

    Raises:
        ValueError: If nothing could be masked, or nothing would be visible.
    """

    grid: tuple[int, int, int]
    share: Share = (0.4, 0.7)

    def __post_init__(self) -> None:
        _check(self.share, self.grid[1] * self.grid[2], "places")

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """Masks for `batch` clips: one target block of all masked tokens."""
        times, rows, columns = self.grid
        number = _number(self.share, rows * columns, generator)
        tokens = torch.arange(times * rows * columns).view(times, rows * columns).T
        return _cut(tokens, number, batch, generator)


@dataclass(frozen=True, kw_only=True)
class RandomTubes:
    """A fixed number of visible positions, drawn at random, at every time: the other sampler of V-JEPA's code.

    Args:
        grid: Times, rows and columns of the tokens of a clip.
        ratio: Share of masked positions; int(positions (1 - ratio)) are visible.

    Raises:
        ValueError: If nothing could be masked, or nothing would be visible.
    """

    grid: tuple[int, int, int]
    ratio: float = 0.9

    def __post_init__(self) -> None:
        _check((self.ratio, self.ratio), self.grid[1] * self.grid[2], "places")
        if self.num_seen < 1:
            raise ValueError(
                f"hiding {self.ratio:.0%} of {self.grid[1]} x {self.grid[2]} positions leaves none visible"
            )

    @property
    def num_seen(self) -> int:
        """Number of visible positions."""
        return int(self.grid[1] * self.grid[2] * (1 - self.ratio))

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """Masks for `batch` clips: one target block of all masked tokens."""
        times, rows, columns = self.grid
        tokens = torch.arange(times * rows * columns).view(times, rows * columns).T
        return _cut(tokens, rows * columns - self.num_seen, batch, generator)


def _number(share: Share, count: int, generator: Generator) -> int:
    drawn = torch.rand((), generator=generator, device=generator.device)
    hidden = round((share[0] + (share[1] - share[0]) * float(drawn)) * count)
    return min(max(hidden, 1), count - 1)


def _cut(tokens: torch.Tensor, number: int, batch: int, generator: Generator) -> Masks:
    """Mask `number` rows of `tokens` (rows, tokens of a row), drawn per sample; indices ascend."""
    order = torch.rand(batch, len(tokens), generator=generator, device=generator.device).argsort(dim=1).cpu()
    hidden, seen = (tokens[rows].flatten(1).sort(dim=1).values for rows in (order[:, :number], order[:, number:]))
    return Masks(context=seen, targets=hidden[:, None])


def _check(share: Share, count: int, what: str) -> None:
    if not 0 < share[0] <= share[1] < 1 or count < 2:
        raise ValueError(f"need 0 < share < 1 and at least two {what}, got {share} of {count}")
