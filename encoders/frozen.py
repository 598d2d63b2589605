"""A frozen encoder of single frames with normalised tokens."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from jepa_mpc.encoders.layers.normed import LatentNorm
from jepa_mpc.types import State


class FrozenFrames(nn.Module):
    """A frozen encoder of single frames, followed by a layer norm without weights.

        z = LN(f(frame))

    Weights get no gradient and the encoder stays in evaluation mode, also while networks on top are trained. A
    `VideoTransformer` repeats an image to fill one tubelet, as V-JEPA 2-AC does.

    Args:
        encoder: Maps images `(B, C, h, w)` to tokens `(B, N, D)`.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        self.norm = LatentNorm()

    @property
    def width(self) -> int:
        """Width D of the tokens."""
        width = self.encoder.width
        assert isinstance(width, int)
        return width

    def train(self, mode: bool = True) -> FrozenFrames:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x: Tensor, keep: Annotated[Tensor, "B K"] | None = None) -> State:
        """Encode images `(B, C, h, w)` to `(B, N, D)`."""
        return self.norm(self.encoder(x) if keep is None else self.encoder(x, keep))
