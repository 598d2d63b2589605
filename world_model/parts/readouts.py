"""Heads that read from latents what hindsight knows of the log: the object seen from the hand, the grip.

    r_t = W z_t + b + h_t (V z_t + d),   log s_t = w z_t + c + h_t (v z_t + e)       z_t seen, or predicted
    loss = mean over known t of  smooth-L1(r_t - x_t) + sg(s_t) (sg|r_t - x_t| / s_t + log s_t)      in units

Labels are rows of the log, NaN where nobody knows; they come from what the robot felt of itself (`object_felt`, its
commands), never from a pose of the object. The maps are linear, so that what they read is laid out straight in the
latent and goes along in imagination. Smooth L1 (Huber 1964) bears the labels that are wrong.

h_t is the height of the hand, which the robot feels (0 for heads that do not use it). An image of a hand camera says in
which direction something lies; how far away depends on how high the hand is above the table: the position is the
direction times a height, hence the product. From the image alone only its size could tell.

Where a frame has no label, a prediction of it must read what the frame itself reads, as far as that reading is sure
(weight 1 - s / trusted); so pushes teach the predictor, too, although nobody feels where the object goes.

The second term is the negative log-likelihood of a Laplace distribution, weighted by its own scale (beta-NLL, Seitzer
et al. 2022, arXiv:2203.09168, with beta = 1). s_t becomes the error that is to be expected: small where the object is
in view, large where it is not. sg stops the gradient, so that readings that are sure do not crowd out the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from jepa_mpc.types import Latents

HEIGHT_M = 0.1  # unit of heights
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
        height: Entry of proprioception that is the height of the hand (m), if the reading depends on it.
    """

    def __init__(
        self,
        column: str,
        *,
        width: int,
        axes: int,
        unit: float = 0.1,
        bend: float = 0.02,
        trusted: float = 0.03,
        height: int | None = None,
    ) -> None:
        super().__init__()
        self.column, self.unit, self.bend, self.trusted, self.height = column, unit, bend, trusted, height
        self.linear = nn.Linear(width, axes)
        self.log_scale = nn.Linear(width, 1)
        self.lifted = None if height is None else nn.Linear(width, axes + 1)  # V and v

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
            ValueError: If the batch does not have the column, or the hand's height where that is needed.
        """
        if self.column not in batch:
            raise ValueError(
                f"this head learns from {self.column!r}, which the log does not have: collect policy=handle"
            )
        labels = batch[self.column][:, first : first + latents.shape[1]].to(latents.dtype)
        height = self._heights(batch, first, latents)
        known = labels.isfinite().all(dim=-1)  # (B, T)
        wanted, weight = labels.nan_to_num() / self.unit, known.to(latents.dtype)
        if seen is not None:
            stands_in, log_scale = (told.detach() for told in self._told(seen, height))
            sure = (1.0 - log_scale.exp() * self.unit / self.trusted).clamp_min(0.0)
            wanted = torch.where(known[..., None], wanted, stands_in)
            weight = torch.where(known, weight, sure)
        found, log_scale = self._told(latents, height)
        gap = self._bent(found - wanted)
        off = (found - wanted).norm(dim=-1).detach()
        return ((gap + misjudged(off, log_scale)) * weight).sum() / weight.sum().clamp_min(1)

    def read(
        self, latents: Annotated[Tensor, "... N D"], height: Annotated[Tensor, "..."] | None = None
    ) -> Annotated[Tensor, "... axes"]:
        """What a state says, in the column's unit; with the height of the hand (m), for heads that depend on it.

        Raises:
            ValueError: If it does, and the height is missing.
        """
        return self.unit * self._told(latents, height)[0]

    @torch.no_grad()
    def doubt(
        self, latents: Annotated[Tensor, "... N D"], height: Annotated[Tensor, "..."] | None = None
    ) -> Annotated[Tensor, "..."]:
        """The distance that the reading is expected to be off, in the column's unit; arguments as for `read`."""
        return self.unit * self._told(latents, height)[1].exp()

    def _bent(self, gap: Tensor) -> Tensor:
        """Smooth L1 `...` of gaps `... axes` in units."""
        none = torch.zeros_like(gap)
        return functional.smooth_l1_loss(gap, none, reduction="none", beta=self.bend / self.unit).sum(-1)

    def _heights(self, batch: Mapping[str, Tensor], first: int, latents: Latents) -> Tensor | None:
        """Heights `B T` of the hand at latents `B T N D`, of the observations from `first` on."""
        if self.height is None:
            return None
        if "proprio" not in batch:
            raise ValueError(f"the reading of {self.column!r} needs the height of the hand: a log with proprioception")
        return batch["proprio"][:, first : first + latents.shape[1], self.height].to(latents.dtype)

    def _told(self, latents: Tensor, height: Tensor | None) -> tuple[Tensor, Tensor]:
        """Readings `... axes`, in units, and the logarithms of their expected errors `...`."""
        flat = latents.flatten(-2)
        found, log_scale = self.linear(flat), self.log_scale(flat)
        if self.lifted is not None:
            if height is None:
                raise ValueError(f"the reading of {self.column!r} depends on the height of the hand: give it (m)")
            more = (height / HEIGHT_M)[..., None] * self.lifted(flat)
            found, log_scale = found + more[..., :-1], log_scale + more[..., -1:]
        return found, log_scale.squeeze(-1).clamp(*LOG_SCALES)


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
        self, column: str, *, width: int, held: str, rest: float = 4.0, reach: float = 0.04, **options: Any
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
        read = self._told(latents, self._heights(batch, 0, latents))[0]
        moved = batch["actions"][..., :3].to(latents.dtype) / self.unit
        steps = read.diff(dim=1)  # (B, T-1, 3)
        sure = (batch[self.held][..., 0] == 1).to(latents.dtype)
        held = sure[:, 1:] * sure[:, :-1]
        away = 1.0 - (-((read.detach().norm(dim=-1) * self.unit / self.reach) ** 2)).exp()
        free = away[:, 1:] * away[:, :-1] * (1.0 - held)
        return (free * self._bent(steps + moved) + held * self._bent(steps)).mean()
