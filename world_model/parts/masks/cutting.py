"""Token lists of one length from masks that leave each sample another number of tokens."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Generator, Tensor

Chosen = Annotated[Tensor, "B T h w"]


def whole_tubes(chosen: Chosen, generator: Generator) -> Annotated[Tensor, "B K"]:
    """Cut every sample to the size of the smallest by leaving out whole places of the picture, drawn at random.

    A place keeps or loses all of its times together, so no part of the clip is preferred.

    Args:
        chosen: bool masks `B T h w`; True tokens are wanted.
        generator: Draws the order in which places are kept.

    Returns:
        Token indices `B K` in increasing order.
    """
    batch, times, rows, columns = chosen.shape
    order = torch.rand(batch, 1, rows * columns, generator=generator, device=generator.device).to(chosen.device)
    ramp = torch.arange(times, device=chosen.device)[:, None] / times  # within a place, early times first
    rank = order.argsort(dim=-1).argsort(dim=-1) + ramp  # (B, T, h w)
    rank = rank.flatten(1).masked_fill(~chosen.flatten(1), torch.inf)
    return rank.argsort(dim=1)[:, : _smallest(chosen)].sort(dim=1).values


def first_tokens(chosen: Chosen) -> Annotated[Tensor, "B K"]:
    """Cut every sample to the size of the smallest by dropping its last tokens: late times go first.

    Args:
        chosen: bool masks `B T h w`; True tokens are wanted.

    Returns:
        Token indices `B K` in increasing order.
    """
    return chosen.flatten(1).int().argsort(dim=1, descending=True, stable=True)[:, : _smallest(chosen)]


def _smallest(chosen: Chosen) -> int:
    return int(chosen.flatten(1).sum(dim=1).min())
