"""Distances between predictions and targets, averaged to one number."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

Distance = Callable[[Tensor, Tensor], Tensor]


class SquaredError(nn.Module):
    """mean (prediction - target)^2."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare two tensors of one shape."""
        return (prediction - target).square().mean()


class AbsoluteError(nn.Module):
    """mean |prediction - target|."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare two tensors of one shape."""
        return (prediction - target).abs().mean()


class PowerError(nn.Module):
    """mean |prediction - target|^p / p: half the squared error for p = 2, the absolute error for 1.

    Args:
        power: p.

    Raises:
        ValueError: If the power is not positive.

    Reference: the loss of V-JEPA's released code (arXiv:2404.08471).
    """

    def __init__(self, power: float) -> None:
        super().__init__()
        if power <= 0:
            raise ValueError(f"the power must be positive, got {power}")
        self.power = power

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare two tensors of one shape."""
        return (prediction - target).abs().pow(self.power).mean() / self.power


class SmoothAbsoluteError(nn.Module):
    """Squared near zero, linear beyond `beta` (smooth L1).

    Args:
        beta: Transition point.
    """

    def __init__(self, *, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare two tensors of one shape."""
        return F.smooth_l1_loss(prediction, target, beta=self.beta)


class CosineDistance(nn.Module):
    """mean scale (1 - cos) over the last axis.

    Args:
        scale: The distance of orthogonal vectors; with 2 it is the squared distance of unit vectors.
    """

    def __init__(self, *, scale: float = 2.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare two tensors of one shape."""
        return self.scale - self.scale * F.cosine_similarity(prediction, target, dim=-1).mean()


class NormalisedTarget(nn.Module):
    """Layer-normalises the target (without weights) before a distance.

    Args:
        distance: The distance.
        eps: Constant of the layer norm.
    """

    def __init__(self, distance: Distance, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.distance = distance
        self.eps = eps

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare a prediction with the normalised target."""
        return self.distance(prediction, F.layer_norm(target, target.shape[-1:], eps=self.eps))
