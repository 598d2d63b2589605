"""The spatial broadcast decoder: every slot draws the whole picture by itself, and masks mix the drawings.

Unlike in the slot mixer, no slot sees another one here, so that what belongs together has to stand in one slot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from jepa_mpc.encoders.layers.slot_attention import Shares
from jepa_mpc.types import State

OCTAVES = (1, 2, 4, 8)


class BroadcastDecoder(nn.Module):
    """Draw features and masks of every place p from each slot alone, and mix them by the masks.

        (f_n, a_n) = mlp(s_n (1 + G p) + P p);   m = softmax over slots of a;   out = sum_n m_n f_n

    Args:
        slot_dim: Width D of the slots.
        num_places: Places L of a square grid, row-major.
        output_dim: Numbers that are drawn per place.
        hidden: Widths of the layers before the last map.
        parts: Masks per place. A place of 16 pixels has one for each of them with `parts=16`; the numbers of a place
            then run over its parts first (channel by channel).

    Raises:
        ValueError: If the parts do not divide the numbers of a place, or the places form no square.

    Reference: Watters et al. 2019, arXiv:1901.07017; Locatello et al. 2020, arXiv:2006.15055, appendix E.3.
    """

    def __init__(
        self,
        slot_dim: int,
        *,
        num_places: int,
        output_dim: int,
        hidden: Sequence[int] = (128, 128),
        parts: int = 1,
    ) -> None:
        super().__init__()
        if output_dim % parts:
            raise ValueError(f"{parts} masks per place do not divide its {output_dim} numbers")
        self.output_dim, self.parts = output_dim, parts
        waves = place_waves(num_places)
        self.register_buffer("waves", waves, persistent=False)
        self.places = nn.Linear(waves.shape[1], slot_dim)
        self.match = nn.Linear(waves.shape[1], slot_dim)
        layers: list[nn.Module] = []
        for inner, outer in zip((slot_dim, *hidden), hidden, strict=False):
            layers += [nn.Linear(inner, outer), nn.ReLU()]
        self.render = nn.Sequential(*layers, nn.Linear((slot_dim, *hidden)[-1], output_dim + parts))

    def forward(self, slots: State) -> tuple[Annotated[Tensor, "B L C"], Shares]:
        """Slots `(B, N, D)` to reconstructions `(B, L, output_dim)` and shares `(B, N, L)`, which sum to 1 over N."""
        drawn, masks = self.layers(slots)
        mixed = (masks[:, :, :, None] * drawn.unflatten(3, (-1, self.parts))).sum(dim=1)  # (B, L, C / parts, parts)
        return mixed.flatten(2), masks.mean(dim=3)

    def layers(self, slots: State) -> tuple[Tensor, Tensor]:
        """What each slot draws `(B, N, L, output_dim)`, and its masks `(B, N, L, parts)`, which sum to 1 over N."""
        drawn = self.render(slots[:, :, None] * (1 + self.match(self.waves)) + self.places(self.waves))
        return drawn[..., : self.output_dim], drawn[..., self.output_dim :].softmax(dim=1)


def place_waves(num_places: int) -> Annotated[Tensor, "L P"]:
    """Rows and columns of a square grid as sines and cosines of a few lengths, so that near places are alike.

    The product of two such codes says how near their places are.

    Raises:
        ValueError: If the places form no square.
    """
    side = math.isqrt(num_places)
    if side**2 != num_places:
        raise ValueError(f"places must form a square grid, got {num_places} of them")
    grid = torch.cartesian_prod(*[torch.linspace(-1, 1, side)] * 2)  # (L, 2), row-major
    angles = torch.cat([grid * math.pi * octave / 2 for octave in OCTAVES], dim=1)
    return torch.cat([grid, angles.sin(), angles.cos()], dim=1)
