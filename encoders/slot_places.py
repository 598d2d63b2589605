"""Slots that say where they are: the middle of what each one attends to, and which one it is.

Slots that were hardly trained bind to things and carry little of them. Where each thing has a slot of its own, the
attention itself tells the place, to a fraction of a cell. Biza et al. 2023, arXiv:2302.04973, read positions and scales
off attention in the same way, to move what slots compare.
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
"""Weight of a token that another slot wins: a slot that wins none is in the middle of the picture."""
SPOTS = 9


def middles(shares: Annotated[Tensor, "B N L"]) -> Annotated[Tensor, "B N 2"]:
    """Middle of the tokens that each slot wins, right and up, from -1 to 1 across a square picture.

    Args:
        shares: Each slot's share of each token of a square grid, row-major.

    Raises:
        ValueError: If the tokens do not form a square.
    """
    side = math.isqrt(shares.shape[-1])
    if side * side != shares.shape[-1]:
        raise ValueError(f"places are read off a square grid of tokens, got {shares.shape[-1]} tokens")
    won = (shares == shares.amax(dim=1, keepdim=True)).to(shares.dtype) + TRACE
    axis = (2 * torch.arange(side, device=shares.device, dtype=shares.dtype) + 1) / side - 1
    right, up = axis.repeat(side), -axis.repeat_interleave(side)
    return won @ torch.stack([right, up], dim=-1) / won.sum(dim=-1, keepdim=True)


class PlacedSlots(nn.Module):
    """Pictures to slots that hold place and number: `(network([middle, faint * one_hot(slot)]) - mean) / std`.

    The network is fixed; mean and spread are those of things anywhere in the picture.

    Args:
        encoder: Whose attention is read; its slots tell things apart by their order.
        num_slots: Slots N of it.
        width: Width D of what comes out.
        generator: Draws the network.
        faint: Size of the number beside the place; small ones make a loss mostly about places.
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
        usual = self._told(anywhere).flatten(0, 1)  # before there is a mean to take away
        self.register_buffer("mean", usual.mean(dim=0))
        self.register_buffer("std", usual.std(dim=0))

    def forward(self, x: Annotated[Tensor, "B C h w"]) -> State:
        """Prepared pictures to slots `(B, N, D)`, each picture by itself."""
        return self.at(middles(self.encoder.track(x[:, None]).shares[:, 0]))

    def at(self, places: Annotated[Tensor, "B N 2"]) -> State:
        """The slots of things at these places, from -1 to 1."""
        return (self._told(places) - self.mean) / self.std

    def _told(self, places: Annotated[Tensor, "B N 2"]) -> State:
        names = self.faint * F.one_hot(torch.arange(self.num_slots, device=places.device), self.num_slots)
        names = names.to(places.dtype).expand(len(places), -1, -1)
        return self.network(torch.cat([places, names], dim=-1)[:, None])[:, 0]
