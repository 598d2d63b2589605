"""Random masks: a share of the tokens is visible, all others are predicted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator

from jepa_mpc.types import Masks


@dataclass(frozen=True, kw_only=True)
class RandomTokens:
    """Random masks: one ratio per batch, a permutation per sample.

        K = int(N (1 - r)) tokens are visible, N - K are masked        r ~ U(ratio)

    Visible and masked tokens together are all tokens, in the order of the permutation.

    Args:
        num_tokens: Tokens N of a sample.
        ratio: Smallest and largest masked share r.

    Raises:
        ValueError: If a share is out of range, or leaves nothing visible or nothing masked.

    Reference: Audio-JEPA, arXiv:2507.02915.
    """

    num_tokens: int
    ratio: tuple[float, float] = (0.4, 0.6)

    def __post_init__(self) -> None:
        low, high = self.ratio
        if not 0 < low <= high < 1:
            raise ValueError(f"the masked share must be a range (low, high) between 0 and 1, got {(low, high)}")
        if not self._seen(high) or self._seen(low) == self.num_tokens:
            raise ValueError(
                f"masking a share of {low} to {high} of {self.num_tokens} tokens leaves nothing visible or nothing to "
                "predict: use a finer grid"
            )

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """Masks for `batch` samples: context `B K`, targets `B 1 L`."""
        low, high = self.ratio
        drawn = float(torch.rand((), generator=generator, device=generator.device))
        seen = self._seen(low + drawn * (high - low))
        order = torch.rand(batch, self.num_tokens, generator=generator, device=generator.device).argsort(dim=1)
        return Masks(context=order[:, :seen], targets=order[:, None, seen:])

    def _seen(self, ratio: float) -> int:
        return int(self.num_tokens * (1 - ratio))
