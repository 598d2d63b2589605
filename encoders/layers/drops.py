"""Dropout settings of Transformer blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Drops:
    """Dropout rates of a Transformer block in training; zero by default.

    Args:
        features: Rate for the entries of each branch.
        attention: Rate for the attention weights.
        path: Rate for whole branches, per sample.

    Raises:
        ValueError: If a rate is out of range.
    """

    features: float = 0.0
    attention: float = 0.0
    path: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= share < 1 for share in (self.features, self.attention, self.path)):
            raise ValueError(f"dropout rates must be in [0, 1), got {self}")

    def at(self, index: int, depth: int) -> Drops:
        """The rates of block `index` of `depth`: the path rate rises linearly from 0 to `path`."""
        share = self.path * index / max(depth - 1, 1)
        return Drops(features=self.features, attention=self.attention, path=share)


class DropPath(nn.Module):
    """Stochastic depth: drops a whole branch of some samples in training, and rescales the others.

    Args:
        share: Share of dropped samples.

    Reference: Huang et al. 2016, arXiv:1603.09382.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """A branch `(B, ...)`."""
        if not self.training or self.share == 0:
            return x
        kept = torch.nn.functional.dropout(x.new_ones(len(x)), self.share)
        return x * kept.view(-1, *(1,) * (x.dim() - 1))
