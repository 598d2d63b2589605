"""Slots from a simulator's ground truth: poses through a fixed network, or features pooled per object.

They are upper bounds and test data: results with them say nothing about object discovery in images, and every figure
should name its source. Also here: agreement of learned slots with a simulator's segmentation.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Latents, State

Places = Annotated[Tensor, "B L"]


class StateSlots(nn.Module):
    """One slot per body: its state through a fixed random network, so that slots resemble learned ones.

    Args:
        inputs: Width of a body's state (position, rotation, kind, ...), entries of order 1.
        width: Width D of the slots.
        generator: Draws the fixed network.
        hidden: Width between its two maps.
    """

    def __init__(self, inputs: int, *, width: int, generator: Generator, hidden: int = 64) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, width))
        draw_weights(self, generator)
        self.requires_grad_(False)

    def forward(self, bodies: Annotated[Tensor, "B T N P"]) -> Latents:
        """States of bodies `(B, T, N, inputs)` to slots `(B, T, N, D)`."""
        check_shape(bodies, "B T N P")
        return self.layers(bodies)


def pooled(tokens: State, owner: Places, *, num_slots: int) -> State:
    """One slot per object: the mean of its tokens; zero for an object out of view.

    Args:
        tokens: Features `(B, L, D)`.
        owner: Index of the object at each token, 0 to `num_slots` - 1; others are ignored.
        num_slots: Slots N.

    Returns:
        `(B, N, D)`.
    """
    sizes = check_shape(tokens, "B L D")
    check_shape(owner, "B L", B=sizes["B"], L=sizes["L"])
    member = (owner[:, None] == torch.arange(num_slots, device=owner.device)[None, :, None]).to(tokens.dtype)
    return member @ tokens / member.sum(dim=2, keepdim=True).clamp(min=1)  # (B, N, L) @ (B, L, D)


def adjusted_rand(
    shares: Annotated[Tensor, "B N L"], owner: Places, *, background: int | None = 0
) -> Annotated[Tensor, "B"]:
    """Agreement of the slots' segmentation with the truth: 1 is identical, 0 is chance level.

        ARI = (sum_ij C(n_ij, 2) - e) / ((sum_i C(a_i, 2) + sum_j C(b_j, 2)) / 2 - e),   e = product / C(n, 2)

    Args:
        shares: Each slot's weight for each token; a token belongs to the slot with the largest.
        owner: Index of the true object at each token, from 0.
        background: Object that is excluded (foreground ARI); None includes all.

    Returns:
        One number per image; NaN with fewer than two tokens.

    Reference: Hubert and Arabie 1985.
    """
    sizes = check_shape(shares, "B N L")
    check_shape(owner, "B L", B=sizes["B"], L=sizes["L"])
    counted = torch.ones_like(owner, dtype=torch.bool) if background is None else owner != background
    found = F.one_hot(shares.argmax(dim=1), sizes["N"]).double()  # (B, L, N)
    truth = F.one_hot(owner.long()).double() * counted[..., None]
    table = truth.transpose(1, 2) @ found  # (B, objects, N)
    together, rows, columns = _pairs(table).sum(dim=(1, 2)), _pairs(table.sum(dim=2)), _pairs(table.sum(dim=1))
    whole = _pairs(counted.sum(dim=1).double())
    chance = rows.sum(dim=1) * columns.sum(dim=1) / whole
    best = (rows.sum(dim=1) + columns.sum(dim=1)) / 2
    same = (best - chance).abs() < 1e-12  # one object, and one slot for all of it
    return torch.where(same & (whole > 0), 1.0, (together - chance) / (best - chance))


def _pairs(counts: Tensor) -> Tensor:
    return counts * (counts - 1) / 2
