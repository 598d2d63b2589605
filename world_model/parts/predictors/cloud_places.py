"""Positional embeddings of point-cloud neighbourhoods for a masked predictor: coordinates instead of grid indices."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from jepa_mpc.encoders.layers.clouds import Centres
from jepa_mpc.encoders.layers.positions import Angles
from jepa_mpc.encoders.points import place_net


class CloudPlaces(nn.Module):
    """Embeds the coordinates of tokens and adds them; no rotation.

    Args:
        width: Width of the tokens.
        hidden: Width inside the small embedding network.

    Reference: Saito et al. 2024, arXiv:2404.16432, section 3.4.
    """

    def __init__(self, width: int, *, hidden: int) -> None:
        super().__init__()
        self.net = place_net(width, hidden=hidden)

    def forward(self, x: Annotated[Tensor, "B L D"], at: Centres) -> tuple[Tensor, Angles | None]:
        """Tokens `(B, L, width)` with their coordinates `(B, L, 3)` added."""
        return x + self.net(at), None
