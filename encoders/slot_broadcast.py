"""The spatial broadcast decoder: every slot decodes the whole image separately, and masks mix the results.

Unlike in the slot mixer, slots do not attend to each other here, so that one slot must represent a whole object.
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
    """Decode features and a mask at every position p from each slot, and mix them by the masks.

        (f_n, a_n) = mlp(s_n (1 + G p) + P p);   m = softmax over slots of a;   out = sum_n m_n f_n

    Args:
        slot_dim: Width D of the slots.
        num_places: Positions L of a square grid, row-major.
        output_dim: Outputs per position.
        hidden: Widths of the layers before the last map.
        parts: Masks per position. A cell of 16 pixels has one per pixel with `parts=16`; the outputs of a position then
            vary fastest over its parts (channel by channel).

    Raises:
        ValueError: If the outputs of a position are not divisible by `parts`, or the positions form no square.

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
            raise ValueError(f"the {output_dim} outputs per position are not divisible by {parts} masks")
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
        """Slots `(B, N, D)` to reconstructions `(B, L, output_dim)` and weights `(B, N, L)`, which sum to 1 over N."""
        drawn, masks = self.layers(slots)
        mixed = (masks[:, :, :, None] * drawn.unflatten(3, (-1, self.parts))).sum(dim=1)  # (B, L, C / parts, parts)
        return mixed.flatten(2), masks.mean(dim=3)

    def layers(self, slots: State) -> tuple[Tensor, Tensor]:
        """Each slot's reconstruction `(B, N, L, output_dim)` and masks `(B, N, L, parts)`, which sum to 1 over N."""
        drawn = self.render(slots[:, :, None] * (1 + self.match(self.waves)) + self.places(self.waves))
        return drawn[..., : self.output_dim], drawn[..., self.output_dim :].softmax(dim=1)


def place_waves(num_places: int) -> Annotated[Tensor, "L P"]:
    """Rows and columns of a square grid as sines and cosines of a few wavelengths, so that near positions are similar.

    The inner product of two such codes measures how near their positions are.

    Raises:
        ValueError: If the positions form no square.
    """
    side = math.isqrt(num_places)
    if side**2 != num_places:
        raise ValueError(f"positions must form a square grid, got {num_places} of them")
    grid = torch.cartesian_prod(*[torch.linspace(-1, 1, side)] * 2)  # (L, 2), row-major
    angles = torch.cat([grid * math.pi * octave / 2 for octave in OCTAVES], dim=1)
    return torch.cat([grid, angles.sin(), angles.cos()], dim=1)
