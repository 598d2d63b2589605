"""The position head: reads displacements from latents, the metric of the distance to a goal.

    p_t = W z_t;     loss = mean over t of |(p_t - mean p) - (x_t - mean x)|^2,     x_t = a_0 + ... + a_{t-1}

The target is the sum of the actions between two frames of a window, so it needs only the log: goal-conditioned inverse
dynamics over many steps, with every later frame as a goal in hindsight (Andrychowicz et al. 2017, arXiv:1707.01495).
Since the head sees one frame at a time and is linear, the latent must represent position linearly: |W (z - z_goal)|
grows with the true distance, where the plain latent distance saturates. Frozen latents of many tokens cannot adapt:
`TokenPlaces` then precedes the linear map. Where actions are no displacements, `MeasuredPosition` learns the same map
from positions in the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.types import Latents


class TokenPlaces(nn.Module):
    """Image positions of a few learned features, and the content there: from grid tokens to one vector.

        weights_k = softmax over the grid of f_k(token);   out = MLP([weights_k (place, V token)]_k)

    Args:
        width: Width D of the tokens.
        rows: Rows of the grid.
        columns: Columns of the grid.
        features: Number of features K.
        seen: Width of the content read at each feature.
        output: Width of the result.
    """

    grid: Tensor

    def __init__(
        self, width: int, *, rows: int, columns: int, features: int = 16, seen: int = 16, output: int = 64
    ) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, features))
        self.value = nn.Linear(width, seen)
        self.mix = nn.Sequential(nn.Linear(features * (2 + seen), 2 * output), nn.GELU(), nn.Linear(2 * output, output))
        row, column = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
        self.register_buffer("grid", torch.stack([row, column], dim=-1).flatten(0, 1), persistent=False)

    def forward(self, latents: Annotated[Tensor, "... N D"]) -> Annotated[Tensor, "... output"]:
        """Tokens `(..., N, D)` to vectors `(..., output)`."""
        weights = self.score(latents).softmax(dim=-2).transpose(-1, -2)  # (..., K, N)
        found = torch.cat([weights @ self.grid, weights @ self.value(latents)], dim=-1)  # (..., K, 2 + seen)
        return self.mix(found.flatten(-2))


class FirstToken(nn.Module):
    """Only the first token: that of the scene, if the wrist camera has its own."""

    def forward(self, latents: Annotated[Tensor, "... N D"]) -> Annotated[Tensor, "... D"]:
        """Tokens `(..., N, D)` to vectors `(..., D)`."""
        return latents[..., 0, :]


class HindsightDisplacement(nn.Module):
    """The displacement head and its loss.

    Args:
        width: Width of a flattened state, N times D.
        axes: The leading action axes that are displacements (x, y, z by default).
        unit_m: Unit of length in the loss, in metres.
        look: Maps states `(..., N, D)` to vectors `(..., width)` before the linear map, for latents of many tokens that
            are not linear in position; by default flattening.
    """

    def __init__(self, width: int, *, axes: int = 3, unit_m: float = 0.1, look: nn.Module | None = None) -> None:
        super().__init__()
        self.axes, self.unit_m = axes, unit_m
        self.look = look or nn.Flatten(start_dim=-2)
        self.linear = nn.Linear(width, axes, bias=False)

    def forward(self, latents: Latents, actions: Annotated[Tensor, "B T-1 A"], generator: Generator) -> Tensor:
        """The loss of windows: latents B T N D and the actions B T-1 A (metres) between them -> a scalar."""
        walked = torch.cumsum(actions[..., : self.axes] / self.unit_m, dim=1)
        walked = torch.cat([torch.zeros_like(walked[:, :1]), walked], dim=1)  # (B, T, axes)
        gap = self.linear(self.look(latents)) - walked
        return (gap - gap.mean(dim=1, keepdim=True)).square().sum(-1).mean()

    def metres(self, latents: Annotated[Tensor, "... N D"]) -> Annotated[Tensor, "... axes"]:
        """Position of a state in metres, up to a constant per lab: only differences are meaningful."""
        return self.unit_m * self.linear(self.look(latents))


class MeasuredPosition(nn.Module):
    """A position head for logs that measure the position: it is read from latents, seen or predicted.

        loss = mean over t of |W z_t + b - x_t|^2

    Args:
        width: Width of a flattened state, N times D.
        entries: Indices of the position in a row of proprioception.
        unit_m: Unit of length in the loss, in metres (or whatever the entries are in).

    Raises:
        ValueError: If there are no entries.
    """

    def __init__(self, width: int, *, entries: Sequence[int], unit_m: float = 0.1) -> None:
        super().__init__()
        if not entries:
            raise ValueError("entries must name the numbers of the observation that are a position, e.g. [0, 1]")
        self.entries, self.unit_m = list(entries), unit_m
        self.linear = nn.Linear(width, len(self.entries))

    def forward(
        self, latents: Latents, batch: Mapping[str, Tensor], *, first: int = 0, seen: Latents | None = None
    ) -> Tensor:
        """The loss of latents B T N D of the observations from `first` on; the batch has `proprio` B T P.

        Raises:
            ValueError: If the log has no such entries.
        """
        measured = batch["proprio"][:, first : first + latents.shape[1]]
        if not -measured.shape[-1] <= min(self.entries) <= max(self.entries) < measured.shape[-1]:
            raise ValueError(f"entries must name some of the {measured.shape[-1]} numbers logged, got {self.entries}")
        places = measured[..., self.entries].to(latents.dtype) / self.unit_m
        return (self.linear(latents.flatten(-2)) - places).square().sum(-1).mean()

    def metres(self, latents: Annotated[Tensor, "... N D"]) -> Annotated[Tensor, "... entries"]:
        """Position of a state in metres (or the unit of the entries)."""
        return self.unit_m * self.linear(latents.flatten(-2))
