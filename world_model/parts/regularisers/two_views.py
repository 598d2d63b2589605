"""VICReg between two views: views of a sample agree, and each view keeps its spread."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn
from torch.nn import functional

from jepa_mpc.world_model.parts.regularisers.vicreg import VICReg


class TwoViews(nn.Module):
    """The loss of VICReg between two views.

        loss = invariance mean (a - b)^2 + variance (V(a) + V(b)) / 2 + covariance (C(a) + C(b))

    V and C are those of `VICReg`.

    Args:
        invariance: Weight of the agreement.
        variance: Weight of the spread.
        covariance: Weight of the covariances.
        eps: Added to the variances.

    Reference: Bardes et al. 2022, arXiv:2105.04906, section 4.1.
    """

    def __init__(
        self, *, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0, eps: float = 1e-4
    ) -> None:
        super().__init__()
        self.invariance, self.variance, self.covariance = invariance, variance, covariance
        self.apart = VICReg(eps=eps)

    def forward(self, first: Annotated[Tensor, "G D"], second: Annotated[Tensor, "G D"]) -> Tensor:
        """A scalar for two views of G samples."""
        return sum((weight * term for weight, term in self.terms(first, second).values()), start=first.new_zeros(()))

    def terms(self, first: Tensor, second: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of the three terms.

        Raises:
            ValueError: If the views differ in shape, or hold fewer than two samples.
        """
        if first.shape != second.shape:
            raise ValueError(f"expected two views of one shape (G, D), got {tuple(first.shape)}, {tuple(second.shape)}")
        (missing_1, shared_1), (missing_2, shared_2) = self.apart.terms(first), self.apart.terms(second)
        return {
            "invariance": (self.invariance, functional.mse_loss(first, second)),
            "variance": (self.variance, (missing_1 + missing_2) / 2),
            "covariance": (self.covariance, shared_1 + shared_2),
        }
