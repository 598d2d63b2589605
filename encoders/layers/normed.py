"""Layer norm without weights, as latents pass it before they are compared."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class LatentNorm(nn.Module):
    """Bring each token to zero mean and unit spread over its channels.

    Args:
        eps: Constant under the root.
    """

    def __init__(self, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(..., D)`."""
        return F.layer_norm(x, x.shape[-1:], eps=self.eps)
