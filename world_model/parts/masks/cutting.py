"""Truncates token lists of different lengths to one length."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Generator, Tensor

Chosen = Annotated[Tensor, "B T h w"]


def whole_tubes(chosen: Chosen, generator: Generator, *, most: int | None = None) -> Annotated[Tensor, "B K"]:
    """Truncate every sample to the size of the smallest by dropping whole spatial positions, drawn at random.

    All times of a position are kept or dropped together, so no part of the clip is preferred.

    Args:
        chosen: bool masks `B T h w`; True for the listed tokens.
        generator: Draws the order of the positions.
        most: Maximum number of tokens per sample, or None.

    Returns:
        Token indices `B K` in increasing order.
    """
    batch, times, rows, columns = chosen.shape
    order = torch.rand(batch, 1, rows * columns, generator=generator, device=generator.device).to(chosen.device)
    ramp = torch.arange(times, device=chosen.device)[:, None] / times  # within a position, early times first
    rank = order.argsort(dim=-1).argsort(dim=-1) + ramp  # (B, T, h w)
    rank = rank.flatten(1).masked_fill(~chosen.flatten(1), torch.inf)
    return rank.argsort(dim=1)[:, : _smallest(chosen, most)].sort(dim=1).values


def first_tokens(chosen: Chosen, *, most: int | None = None) -> Annotated[Tensor, "B K"]:
    """Truncate every sample to the size of the smallest by dropping its last tokens: late times first.

    Args:
        chosen: bool masks `B T h w`; True for the listed tokens.
        most: Maximum number of tokens per sample, or None.

    Returns:
        Token indices `B K` in increasing order.
    """
    return chosen.flatten(1).int().argsort(dim=1, descending=True, stable=True)[:, : _smallest(chosen, most)]


def _smallest(chosen: Chosen, most: int | None) -> int:
    smallest = int(chosen.flatten(1).sum(dim=1).min())
    return smallest if most is None else min(smallest, most)
