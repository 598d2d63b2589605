"""Slots with positions: the centroid of each slot's attention, and the slot's index.

Slots with little training bind to objects but carry little information. If each object has its own slot, the attention
gives its position with sub-cell precision. Biza et al. 2023, arXiv:2302.04973, read positions and scales from attention
in the same way, for relative positional embeddings.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from jepa_mpc.encoders.slot_sources import StateSlots
from jepa_mpc.encoders.slots import SlotEncoder
from jepa_mpc.types import State

TRACE = 1e-6
"""Weight of a token won by another slot: a slot that wins none is at the centre of the image."""
SPOTS = 9


def middles(shares: Annotated[Tensor, "B N L"]) -> Annotated[Tensor, "B N 2"]:
    """Centroid of the tokens won by each slot, right and up, from -1 to 1 across a square image.

    Args:
        shares: Each slot's weight for each token of a square grid, row-major.

    Raises:
        ValueError: If the tokens do not form a square.
    """
    side = math.isqrt(shares.shape[-1])
    if side * side != shares.shape[-1]:
        raise ValueError(f"positions need a square grid of tokens, got {shares.shape[-1]} tokens")
    won = (shares == shares.amax(dim=1, keepdim=True)).to(shares.dtype) + TRACE
    axis = (2 * torch.arange(side, device=shares.device, dtype=shares.dtype) + 1) / side - 1
    right, up = axis.repeat(side), -axis.repeat_interleave(side)
    return won @ torch.stack([right, up], dim=-1) / won.sum(dim=-1, keepdim=True)


class PlacedSlots(nn.Module):
    """Images to slots with position and index: `(network([centroid, faint * one_hot(slot)]) - mean) / std`.

    The network is fixed; mean and std are those of objects anywhere in the image.

    Args:
        encoder: The slot encoder whose attention is read; objects are identified by slot order.
        num_slots: Its number of slots N.
        width: Width D of the output.
        generator: Draws the network.
        faint: Scale of the index relative to the position; small values make a loss depend mainly on positions.
    """

    gives_slots = True
    mean: Tensor
    std: Tensor

    def __init__(
        self, encoder: SlotEncoder, *, num_slots: int, width: int, generator: Generator, faint: float = 0.5
    ) -> None:
        super().__init__()
        self.encoder, self.num_slots, self.width, self.faint = encoder, num_slots, width, faint
        self.network = StateSlots(2 + num_slots, width=width, generator=generator)
        line = torch.linspace(-1, 1, SPOTS)
        anywhere = torch.cartesian_prod(line, line)[:, None].expand(-1, num_slots, -1)
        usual = self._told(anywhere).flatten(0, 1)  # before mean and std are known
        self.register_buffer("mean", usual.mean(dim=0))
        self.register_buffer("std", usual.std(dim=0))

    def forward(self, x: Annotated[Tensor, "B C h w"]) -> State:
        """Prepared images to slots `(B, N, D)`, each image separately."""
        return self.at(middles(self.encoder.track(x[:, None]).shares[:, 0]))

    def at(self, places: Annotated[Tensor, "B N 2"]) -> State:
        """The slots of objects at these positions, from -1 to 1."""
        return (self._told(places) - self.mean) / self.std

    def _told(self, places: Annotated[Tensor, "B N 2"]) -> State:
        names = self.faint * F.one_hot(torch.arange(self.num_slots, device=places.device), self.num_slots)
        names = names.to(places.dtype).expand(len(places), -1, -1)
        return self.network(torch.cat([places, names], dim=-1)[:, None])[:, 0]
