"""Masks that hide either whole moments of a clip or whole places of the picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator

from jepa_mpc.types import Masks

Share = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class MomentMask:
    """Hides whole moments: every token of some times, the same number of times in each sample.

    Args:
        grid: Times, rows and columns of the tokens of a clip.
        share: Smallest and largest share of the times that are hidden; drawn once per batch.

    Raises:
        ValueError: If nothing could be hidden, or nothing seen.
    """

    grid: tuple[int, int, int]
    share: Share = (0.25, 0.5)

    def __post_init__(self) -> None:
        _check(self.share, self.grid[0], "times")

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """Masks for `batch` clips: one target block of all hidden tokens."""
        times, rows, columns = self.grid
        number = _number(self.share, times, generator)
        tokens = torch.arange(times * rows * columns).view(times, rows * columns)
        return _cut(tokens, number, batch, generator)


@dataclass(frozen=True, kw_only=True)
class PlaceMask:
    """Hides whole places: the tokens of some cells of the picture at every time, as many in each sample.

    Args:
        grid: Times, rows and columns of the tokens of a clip.
        share: Smallest and largest share of the places that are hidden; drawn once per batch.

    Raises:
        ValueError: If nothing could be hidden, or nothing seen.
    """

    grid: tuple[int, int, int]
    share: Share = (0.4, 0.7)

    def __post_init__(self) -> None:
        _check(self.share, self.grid[1] * self.grid[2], "places")

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """Masks for `batch` clips: one target block of all hidden tokens."""
        times, rows, columns = self.grid
        number = _number(self.share, rows * columns, generator)
        tokens = torch.arange(times * rows * columns).view(times, rows * columns).T
        return _cut(tokens, number, batch, generator)


def _number(share: Share, count: int, generator: Generator) -> int:
    drawn = torch.rand((), generator=generator, device=generator.device)
    hidden = round((share[0] + (share[1] - share[0]) * float(drawn)) * count)
    return min(max(hidden, 1), count - 1)


def _cut(tokens: torch.Tensor, number: int, batch: int, generator: Generator) -> Masks:
    """Hide `number` rows of `tokens` (rows, tokens of a row), drawn for each sample; indices rise."""
    order = torch.rand(batch, len(tokens), generator=generator, device=generator.device).argsort(dim=1).cpu()
    hidden, seen = (tokens[rows].flatten(1).sort(dim=1).values for rows in (order[:, :number], order[:, number:]))
    return Masks(context=seen, targets=hidden[:, None])


def _check(share: Share, count: int, what: str) -> None:
    if not 0 < share[0] <= share[1] < 1 or count < 2:
        raise ValueError(f"need 0 < share < 1 and at least two {what} to hide some of, got {share} of {count}")
