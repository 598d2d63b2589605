"""What a block leaves out at random while it learns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Drops:
    """Shares that a Transformer block drops in training; by default nothing.

    Args:
        features: Of the entries of each branch.
        attention: Of the attention weights.
        path: Of the samples whose branch is left out as a whole.

    Raises:
        ValueError: If a share is out of range.
    """

    features: float = 0.0
    attention: float = 0.0
    path: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= share < 1 for share in (self.features, self.attention, self.path)):
            raise ValueError(f"shares to drop must be from 0 up to, but not including, 1, got {self}")

    def at(self, index: int, depth: int) -> Drops:
        """Those of block `index` of `depth`: paths are dropped more and more often, from never to `path`."""
        share = self.path * index / max(depth - 1, 1)
        return Drops(features=self.features, attention=self.attention, path=share)


class DropPath(nn.Module):
    """Leaves out a whole branch of some samples in training, and makes up for it in the others.

    Args:
        share: Of the samples.

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
