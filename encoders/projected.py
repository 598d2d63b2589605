"""An encoder followed by a projection of its tokens."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from jepa_mpc.types import State


class Projected(nn.Module):
    """Encode, then project each token.

    Args:
        encoder: Outputs tokens `(B, N, D')`.
        projector: Maps tokens row by row to width D.
        width: Width D of the projected tokens.
    """

    def __init__(self, encoder: nn.Module, projector: nn.Module, *, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.width = width

    def forward(self, x: Tensor, keep: Annotated[Tensor, "B K"] | None = None) -> State:
        """Encode a batch; `keep` selects the visible tokens (None: all of them)."""
        return self.projector(self.encoder(x) if keep is None else self.encoder(x, keep))
