"""Heads that read from latents what the log came to know in hindsight: the object seen from the hand, the grip.

    r_t = W z_t + b;      loss = mean over known t of smooth-L1((r_t - x_t) / unit),    z_t seen, or predicted

Labels are rows of the log, NaN where nobody knows; they come from what the robot felt of itself (`object_felt`, its
commands), never from a pose of the object. The maps are linear, so that what they read is laid out straight in the
latent and goes along in imagination. Smooth L1 (Huber 1964) bears the labels that are wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from torch import Tensor, nn
from torch.nn import functional

from jepa_mpc.types import Latents


class HindsightReading(nn.Module):
    """A linear head for one column of the log.

    Args:
        column: Name of the column in a batch, `B T axes`.
        width: Width of a flattened state, N times D.
        axes: Numbers that are read.
        unit: What counts as 1 in the loss, in the column's unit.
        bend: Error at which the loss turns from squared to straight, in that unit.
    """

    def __init__(self, column: str, *, width: int, axes: int, unit: float = 0.1, bend: float = 0.02) -> None:
        super().__init__()
        self.column, self.unit, self.bend = column, unit, bend
        self.linear = nn.Linear(width, axes)

    def forward(self, latents: Latents, batch: Mapping[str, Tensor], *, first: int = 0) -> Tensor:
        """The loss of windows: latents B T N D and the batch that has the column, from observation `first` on.

        Raises:
            ValueError: If the batch does not have the column.
        """
        if self.column not in batch:
            raise ValueError(
                f"this head learns from {self.column!r}, which the log does not have: collect policy=handle"
            )
        labels = batch[self.column][:, first : first + latents.shape[1]].to(latents.dtype)
        known = labels.isfinite().all(dim=-1)  # (B, T)
        wanted = labels.nan_to_num() / self.unit
        gap = functional.smooth_l1_loss(self._scaled(latents), wanted, reduction="none", beta=self.bend / self.unit)
        return (gap.sum(-1) * known).sum() / known.sum().clamp_min(1)

    def read(self, latents: Annotated[Tensor, "... N D"]) -> Annotated[Tensor, "... axes"]:
        """What a state says, in the column's unit."""
        return self.unit * self._scaled(latents)

    def _scaled(self, latents: Tensor) -> Tensor:
        return self.linear(latents.flatten(-2))
