"""The dense loss of V-JEPA 2.1: visible tokens are predicted, too, with more weight near masked ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.types import Masks

Nearness = Callable[[Masks], Annotated[Tensor, "B K"]]


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A weight that is zero, rises linearly, and stays constant.

    Args:
        start: Start of the rise.
        stop: End of the rise.
        height: Final value.

    Raises:
        ValueError: If it ends before it starts.
    """

    start: float
    stop: float
    height: float

    def __post_init__(self) -> None:
        if self.stop < self.start:
            raise ValueError(f"a ramp must not stop before it starts, got {self.start} to {self.stop}")

    def __call__(self, at: Tensor) -> Tensor:
        """The weight at a point of the ramp's axis (progress, or steps)."""
        if self.stop == self.start:
            return self.height * (at >= self.start).to(at.dtype)
        return self.height * ((at - self.start) / (self.stop - self.start)).clamp(0, 1)


class InverseRootDistance:
    """1 / sqrt(d): d is the distance, in tokens, of a visible token to the nearest masked one of its sample.

    Args:
        grid: Rows and columns of one time step.
        unit: Length in tokens that counts as 1; larger grids may use their size over 16.

    Reference: V-JEPA 2.1, arXiv:2603.14482.
    """

    def __init__(self, grid: Sequence[int], *, unit: float = 1.0) -> None:
        self.rows, self.columns = int(grid[0]), int(grid[1])
        self.unit = unit

    def __call__(self, masks: Masks) -> Annotated[Tensor, "B K"]:
        """Weights of the visible tokens."""
        return self.distance(masks).rsqrt()

    def distance(self, masks: Masks) -> Annotated[Tensor, "B K"]:
        """Distance d in (time, row, column) of each visible token."""
        seen, hidden = self._places(masks.context), self._places(masks.targets.flatten(1))
        squares = (seen[:, :, None] - hidden[:, None]).square().sum(dim=-1)  # (B, K, M L)
        return squares.amin(dim=-1).sqrt() / self.unit

    def _places(self, at: Tensor) -> Tensor:
        in_frame = at % (self.rows * self.columns)
        parts = (at // (self.rows * self.columns), in_frame // self.columns, in_frame % self.columns)
        return torch.stack(parts, dim=-1).float()


def alike(masks: Masks) -> Annotated[Tensor, "B K"]:
    """Equal weights for all visible tokens, as in the last phase of the published training."""
    return torch.ones_like(masks.context, dtype=torch.float32)


class SeenLoss:
    """Weighted L1 on the visible tokens.

        loss = weight(progress) * mean |prediction - target| * nearness

    Args:
        nearness: Weight of each visible token.
        ramp: Weight of the loss over the training's progress; by default that of the published training, which rises
            from step 15,000 to 30,000 of 135,000.

    Reference: V-JEPA 2.1, arXiv:2603.14482.
    """

    def __init__(self, *, nearness: Nearness = alike, ramp: Ramp | None = None) -> None:
        self.nearness = nearness
        self.weight = ramp or Ramp(start=15 / 135, stop=30 / 135, height=0.5)

    def __call__(self, prediction: Tensor, target: Tensor, masks: Masks) -> Tensor:
        """Weighted mean error of visible tokens `B K D`, without the ramp."""
        nearness = self.nearness(masks).to(prediction.dtype)
        return ((prediction - target).abs() * nearness[..., None]).mean()
