"""Cutting clips into tubelets: the first layer of a video Transformer."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F


class TubeletPatches(nn.Module):
    """One linear map of every box of `tubelet` frames and `patch` x `patch` pixels (a non-overlapping convolution).

    Args:
        channels: Channels of a frame.
        width: Width D of the tokens.
        patch: Height and width of a box in pixels, or one number for both.
        tubelet: Frames in a box.
    """

    def __init__(self, channels: int, width: int, *, patch: int | tuple[int, int], tubelet: int) -> None:
        super().__init__()
        self.patch, self.tubelet = (patch, patch) if isinstance(patch, int) else patch, tubelet
        self.weight = nn.Parameter(torch.empty(width, channels, tubelet, *self.patch))
        self.bias = nn.Parameter(torch.empty(width))
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Initialise the weights from a normal distribution with std 0.02, biases zero."""
        nn.init.trunc_normal_(self.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Clips `(B, T, C, h, w)` to a grid of tokens `(B, T / tubelet, h / patch, w / patch, D)`.

        Frames and pixels must be divisible into boxes; the caller checks this.
        """
        boxes = x.unflatten(4, (-1, self.patch[1])).unflatten(3, (-1, self.patch[0])).unflatten(1, (-1, self.tubelet))
        boxes = boxes.permute(0, 1, 4, 6, 3, 2, 5, 7)  # (B, times, rows, columns, C, tubelet, height, width)
        return F.linear(boxes.flatten(4), self.weight.flatten(1), self.bias)
