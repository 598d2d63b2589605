"""Layer norms without weights, for latents that are compared."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class LatentNorm(nn.Module):
    """Normalise each token to zero mean and unit variance over its channels.

    Args:
        eps: Constant under the root.
        groups: Number of equal channel groups that are normalised separately (concatenated levels).
    """

    def __init__(self, *, eps: float = 1e-5, groups: int = 1) -> None:
        super().__init__()
        self.eps = eps
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(..., D)`."""
        parts = x.unflatten(-1, (self.groups, -1))
        return F.layer_norm(parts, parts.shape[-1:], eps=self.eps).flatten(-2)


class UnbiasedNorm(nn.Module):
    """The same with the sample variance (divided by D - 1), as Audio-JEPA standardises its targets.

        (x - mean) / sqrt(var + eps)

    Args:
        eps: Constant under the root.

    Reference: the released code of Audio-JEPA (arXiv:2507.02915).
    """

    def __init__(self, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(..., D)`."""
        centred = x - x.mean(dim=-1, keepdim=True)
        return centred / (x.var(dim=-1, keepdim=True) + self.eps).sqrt()


class Centred(nn.Module):
    """Subtract from each token its mean over the channels."""

    def forward(self, x: Tensor) -> Tensor:
        """Centre `(..., D)`."""
        return x - x.mean(dim=-1, keepdim=True)
