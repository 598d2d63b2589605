"""Heads that read from latents what hindsight knows of the log: the object seen from the hand, the grip.

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


def misjudged(off: Tensor, log_scale: Tensor) -> Tensor:
    """How badly the expected error exp(log_scale) fits the error that was made (no gradient): the second term above."""
    return log_scale.exp().detach() * (off * (-log_scale).exp() + log_scale)


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
        gap = self._bent(found - wanted)
        log_scale = self._log_scale(latents)
        off = (found - wanted).norm(dim=-1).detach()
        return ((gap + misjudged(off, log_scale)) * weight).sum() / weight.sum().clamp_min(1)

    def read(self, latents: Annotated[Tensor, "... N D"]) -> Annotated[Tensor, "... axes"]:
        """What a state says, in the column's unit."""
        return self.unit * self._scaled(latents)

    @torch.no_grad()
    def doubt(self, latents: Annotated[Tensor, "... N D"]) -> Annotated[Tensor, "..."]:
        """The distance that the reading is expected to be off, in the column's unit."""
        return self.unit * self._log_scale(latents).exp()

    def _bent(self, gap: Tensor) -> Tensor:
        """Smooth L1 `...` of gaps `... axes` in units."""
        none = torch.zeros_like(gap)
        return functional.smooth_l1_loss(gap, none, reduction="none", beta=self.bend / self.unit).sum(-1)

    def _scaled(self, latents: Tensor) -> Tensor:
        return self.linear(latents.flatten(-2))

    def _log_scale(self, latents: Tensor) -> Tensor:
        return self.log_scale(latents.flatten(-2)).squeeze(-1).clamp(*LOG_SCALES)


class PlaceReading(HindsightReading):
    """The position of an object seen from the hand, learned from unlabelled frames, too: things rest unless handled.

        loss + rest (mean_t u_t H(r_t+1 - r_t + a_t) + mean_t h_t H(r_t+1 - r_t))      H is smooth L1, in units
        u_t = sg (1 - w_t) (1 - w_t+1) (1 - h_t),   w_t = exp(-(|r_t| / reach)^2),   h_t = 1 if held at t and at t+1

    Where the hand (moved by a_t) is away, the object stays on the table; what is held stays in the hand. Few frames
    have labels; this term makes the others agree with them.

    Args:
        column: As for `HindsightReading`, `B T 3`.
        width: Width of a flattened state, N times D.
        held: Column `B T 1` of 1 where something is known to be in the hand.
        rest: Weight of the term.
        reach: Distance at which the hand may move the object, in the unit of the column.
        **options: Further ones of `HindsightReading`.
    """

    def __init__(
        self, column: str, *, width: int, held: str, rest: float = 4.0, reach: float = 0.04, **options: float
    ) -> None:
        super().__init__(column, width=width, axes=3, **options)
        self.held, self.rest, self.reach = held, rest, reach

    def forward(
        self, latents: Latents, batch: Mapping[str, Tensor], *, first: int = 0, seen: Latents | None = None
    ) -> Tensor:
        """As for `HindsightReading`; the batch also has the column `held` and actions `B T-1 A` (first the motion, m).

        Raises:
            ValueError: If the batch lacks a column.
        """
        loss = super().forward(latents, batch, first=first, seen=seen)
        return loss if seen is not None else loss + self.rest * self._unrest(latents, batch)

    def _unrest(self, latents: Latents, batch: Mapping[str, Tensor]) -> Tensor:
        """How much the readings say that something moves by itself."""
        if self.held not in batch:
            raise ValueError(f"this head learns from {self.held!r}, which the log does not have: collect policy=handle")
        read, moved = self._scaled(latents), batch["actions"][..., :3].to(latents.dtype) / self.unit
        steps = read.diff(dim=1)  # (B, T-1, 3)
        sure = (batch[self.held][..., 0] == 1).to(latents.dtype)
        held = sure[:, 1:] * sure[:, :-1]
        away = 1.0 - (-((read.detach().norm(dim=-1) * self.unit / self.reach) ** 2)).exp()
        free = away[:, 1:] * away[:, :-1] * (1.0 - held)
        return (free * self._bent(steps + moved) + held * self._bent(steps)).mean()
