"""Heads that read from latents what the log came to know in hindsight: the object seen from the hand, the grip.

    r_t = W z_t + b,   s_t = exp(v z_t + c)                                  z_t seen, or predicted
    loss = mean over known t of  smooth-L1(r_t - x_t) + sg(s_t) (sg|r_t - x_t| / s_t + log s_t)      in units

Labels are rows of the log, NaN where nobody knows; they come from what the robot felt of itself (`object_felt`, its
commands), never from a pose of the object. The maps are linear, so that what they read is laid out straight in the
latent and goes along in imagination. Smooth L1 (Huber 1964) bears the labels that are wrong.

Where a frame has no label, a prediction of it must read what the frame itself reads, as far as that reading is sure
(weight 1 - s / trusted); so pushes teach the predictor, too, although nobody feels where the object goes.

The second term is the negative log-likelihood of a Laplace distribution, weighted by its own scale (beta-NLL, Seitzer
et al. 2022, arXiv:2203.09168, with beta = 1). s_t becomes the error that is to be expected: small where the object is
in view, large where it is not. sg stops the gradient, so that readings that are sure do not crowd out the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from jepa_mpc.types import Latents

LOG_SCALES = (-5.0, 2.0)  # expected errors are kept between 0.7 % and 740 % of the unit


class HindsightReading(nn.Module):
    """A linear head for one column of the log, which also says how far it expects to be off.

    Args:
        column: Name of the column in a batch, `B T axes`.
        width: Width of a flattened state, N times D.
        axes: Numbers that are read.
        unit: What counts as 1 in the loss, in the column's unit.
        bend: Error at which the loss turns from squared to straight, in that unit.
        trusted: Expected error from which a reading of a frame does not stand in for a missing label, in that unit.
    """

    def __init__(
        self, column: str, *, width: int, axes: int, unit: float = 0.1, bend: float = 0.02, trusted: float = 0.03
    ) -> None:
        super().__init__()
        self.column, self.unit, self.bend, self.trusted = column, unit, bend, trusted
        self.linear = nn.Linear(width, axes)
        self.log_scale = nn.Linear(width, 1)

    def forward(
        self, latents: Latents, batch: Mapping[str, Tensor], *, first: int = 0, seen: Latents | None = None
    ) -> Tensor:
        """The loss of windows: latents B T N D and the batch that has the column, from observation `first` on.

        Args:
            latents: Encoded or predicted latents.
            batch: Has the column.
            first: Number of the first observation.
            seen: For predicted latents, the encoded ones of the same observations.

        Raises:
            ValueError: If the batch does not have the column.
        """
        if self.column not in batch:
            raise ValueError(
                f"this head learns from {self.column!r}, which the log does not have: collect policy=handle"
            )
        labels = batch[self.column][:, first : first + latents.shape[1]].to(latents.dtype)
        known = labels.isfinite().all(dim=-1)  # (B, T)
        wanted, weight = labels.nan_to_num() / self.unit, known.to(latents.dtype)
        if seen is not None:
            sure = (1.0 - self._log_scale(seen).exp() * self.unit / self.trusted).clamp_min(0.0).detach()
            wanted = torch.where(known[..., None], wanted, self._scaled(seen).detach())
            weight = torch.where(known, weight, sure)
        found = self._scaled(latents)
        gap = functional.smooth_l1_loss(found, wanted, reduction="none", beta=self.bend / self.unit).sum(-1)
        log_scale = self._log_scale(latents)
        off = (found - wanted).norm(dim=-1).detach()
        doubt = log_scale.exp().detach() * (off * (-log_scale).exp() + log_scale)
        return ((gap + doubt) * weight).sum() / weight.sum().clamp_min(1)

    def read(self, latents: Annotated[Tensor, "... N D"]) -> Annotated[Tensor, "... axes"]:
        """What a state says, in the column's unit."""
        return self.unit * self._scaled(latents)

    @torch.no_grad()
    def doubt(self, latents: Annotated[Tensor, "... N D"]) -> Annotated[Tensor, "..."]:
        """The distance that the reading is expected to be off, in the column's unit."""
        return self.unit * self._log_scale(latents).exp()

    def _scaled(self, latents: Tensor) -> Tensor:
        return self.linear(latents.flatten(-2))

    def _log_scale(self, latents: Tensor) -> Tensor:
        return self.log_scale(latents.flatten(-2)).squeeze(-1).clamp(*LOG_SCALES)
