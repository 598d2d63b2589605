"""Layer norm without weights, as latents pass it before they are compared."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class LatentNorm(nn.Module):
    """Bring each token to zero mean and unit spread over its channels.

    Args:
        eps: Constant under the root.
        groups: Equal parts of the channels that are normalised each by itself (levels that stand side by side).
    """

    def __init__(self, *, eps: float = 1e-5, groups: int = 1) -> None:
        super().__init__()
        self.eps = eps
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(..., D)`."""
        parts = x.unflatten(-1, (self.groups, -1))
        return F.layer_norm(parts, parts.shape[-1:], eps=self.eps).flatten(-2)
