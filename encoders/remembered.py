"""A frozen encoder that encodes each image of a log once and caches the tokens for the rest of the training."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from jepa_mpc.types import State


class Remembered(nn.Module):
    """An encoder without gradients; in training mode it only encodes images that are not in its cache.

    Useful if its images are not augmented. In evaluation mode nothing is cached, so that memory stays constant in long
    deployments.

    Args:
        encoder: Maps images `B C h w` to tokens `B N D`; its weights are frozen, and it stays in evaluation mode.
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        self.width: int = encoder.width
        self.num_cameras: int = encoder.num_cameras
        self._known: dict[bytes, Tensor] = {}

    def train(self, mode: bool = True) -> Remembered:
        """Only the caching differs between the modes."""
        super().train(mode)
        self.encoder.eval()
        return self

    @torch.no_grad()
    def forward(self, x: Tensor, keep: Annotated[Tensor, "B K"] | None = None) -> State:
        """Images `B C h w` to tokens `B N D`."""
        if not self.training:
            return self.encoder(x, keep)
        names = [picture.numpy(force=True).tobytes() for picture in x]
        marks = [hash(name).to_bytes(8, "little", signed=True) for name in names]
        new = [at for at, mark in enumerate(marks) if mark not in self._known]
        if new:
            for at, tokens in zip(new, self.encoder(x[new], keep), strict=True):
                self._known[marks[at]] = tokens.clone()
        return torch.stack([self._known[mark] for mark in marks])
