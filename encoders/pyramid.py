"""A convolutional encoder with features at several resolutions, each level half as fine as the previous one.

The blocks are those of ConvNeXt (Liu et al. 2022, arXiv:2201.03545); the pyramid of MC-JEPA (Bardes et al. 2023,
arXiv:2307.12698) has a stem of two small convolutions instead of one large one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from jepa_mpc.errors import BadObservation
from jepa_mpc.types import State

CHANNELS_PER_CAMERA = 3


@dataclass(frozen=True, kw_only=True)
class PyramidSizes:
    """Sizes of a pyramid encoder; every list has one entry per level, the finest first.

    Args:
        widths: Channels.
        depths: Blocks; 0 for a level that is only a convolution of the stem.
        steps: Downsampling factor of each level from the previous one (1 or 2); the first counts from the pixels.
        kernel: Side of the depthwise convolutions in pixels, odd.
        expansion: Ratio of the width inside a block to its channels.

    Raises:
        ValueError: If the lists differ in length, or a number is out of range.
    """

    widths: Sequence[int]
    depths: Sequence[int]
    steps: Sequence[int]
    kernel: int = 7
    expansion: int = 4

    def __post_init__(self) -> None:
        lengths = {len(self.widths), len(self.depths), len(self.steps)}
        if lengths != {len(self.widths)} or not self.widths:
            raise ValueError(f"widths, depths and steps must have one entry per level, got {self}")
        if min(self.widths) < 1 or min(self.depths) < 0 or not set(self.steps) <= {1, 2}:
            raise ValueError(f"need positive widths, depths from 0 and steps of 1 or 2, got {self}")
        if self.kernel < 1 or self.kernel % 2 == 0 or self.expansion < 1:
            raise ValueError(f"need an odd kernel and an expansion from 1, got {self.kernel} and {self.expansion}")

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell of each level."""
        strides, stride = [], 1
        for step in self.steps:
            stride *= step
            strides.append(stride)
        return tuple(strides)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel.

    Args:
        channels: Number of channels.
        eps: Constant under the root.
    """

    def __init__(self, channels: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """`B C h w` in and out."""
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution and a pointwise feed-forward part with a residual connection.

        x = x + scale * W_2 gelu(W_1 LN(depthwise(x)))

    Args:
        channels: Number of channels.
        kernel: Side of the depthwise convolution.
        expansion: Ratio of the width of the feed-forward part to the channels.
        scale: Initial value of the learned scale of each channel.
    """

    def __init__(self, channels: int, *, kernel: int = 7, expansion: int = 4, scale: float = 0.1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.up = nn.Linear(channels, expansion * channels)
        self.down = nn.Linear(expansion * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """`B C h w` in and out."""
        hidden = self.norm(self.depthwise(x).permute(0, 2, 3, 1))  # (B, h, w, C)
        hidden = self.down(functional.gelu(self.up(hidden)))
        return x + (self.scale * hidden).permute(0, 3, 1, 2)


class PyramidEncoder(nn.Module):
    """Images to features at every level; as an encoder, to the cells of one level as tokens.

    All cameras share the weights. The tokens are those of the first camera, row by row, then those of the next.

    Args:
        sizes: All sizes.
        level: Level of the tokens, counted from the finest, or from the coarsest if negative.
        num_cameras: Number of cameras whose channels are stacked.

    Raises:
        ValueError: If there is no such level.

    Reference: Bardes et al. 2023, arXiv:2307.12698, section 3.
    """

    def __init__(self, sizes: PyramidSizes, *, level: int = -1, num_cameras: int = 1) -> None:
        super().__init__()
        count = len(sizes.widths)
        if not -count <= level < count or num_cameras < 1:
            raise ValueError(f"need a level among {count} and num_cameras >= 1, got level={level}, {num_cameras}")
        self.sizes, self.level, self.num_cameras = sizes, level % count, num_cameras
        self.width = sizes.widths[level]
        inputs = (CHANNELS_PER_CAMERA, *sizes.widths)
        self.enter = nn.ModuleList(
            _entrance(inputs[index], inputs[index + 1], step=sizes.steps[index], stem=not any(sizes.depths[:index]))
            for index in range(count)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(width, kernel=sizes.kernel, expansion=sizes.expansion) for _ in range(depth)))
            for width, depth in zip(sizes.widths, sizes.depths, strict=True)
        )

    def forward(self, x: Tensor, keep: Annotated[Tensor, "B K"] | None = None) -> State:
        """Encode images.

        Args:
            x: Normalised images `B C h w`, C = 3 per camera.
            keep: Indices of the returned tokens, or None for all.

        Returns:
            Tokens `B N D`, N = cameras * rows * columns of the level.

        Raises:
            BadObservation: If the channels do not fit the cameras, or the image is smaller than the coarsest cell.
        """
        wanted = CHANNELS_PER_CAMERA * self.num_cameras
        if x.dim() != 4 or x.shape[1] != wanted:
            raise BadObservation(f"expected images (B, {wanted}, h, w), got {tuple(x.shape)}")
        views = x.unflatten(1, (self.num_cameras, CHANNELS_PER_CAMERA)).flatten(0, 1)  # (B V, 3, h, w)
        cells = self.levels(views, last=self.level)[-1].flatten(2).transpose(1, 2)  # (B V, rows columns, D)
        tokens = cells.unflatten(0, (-1, self.num_cameras)).flatten(1, 2)
        return tokens if keep is None else tokens.gather(1, keep[..., None].expand(-1, -1, self.width))

    def levels(self, pictures: Tensor, *, last: int | None = None) -> list[Tensor]:
        """Features `B width h/stride w/stride` of each level, the finest first.

        Args:
            pictures: Normalised images `B 3 h w` of one camera each.
            last: The coarsest level to return; by default all levels.

        Raises:
            BadObservation: If the images have other channels, or are smaller than a cell of the coarsest level.
        """
        coarsest = self.sizes.strides[-1]
        if pictures.dim() != 4 or pictures.shape[1] != CHANNELS_PER_CAMERA or min(pictures.shape[2:]) < coarsest:
            raise BadObservation(
                f"expected images (B, 3, h, w) of at least {coarsest} x {coarsest} pixels, got "
                f"{tuple(pictures.shape)}: use larger images or fewer levels"
            )
        x, found = pictures.contiguous(memory_format=torch.channels_last), []
        count = len(self.stages) if last is None else last + 1
        for enter, stage in zip(self.enter[:count], self.stages[:count], strict=True):
            x = stage(enter(x))
            found.append(x)
        return found


def _entrance(inputs: int, outputs: int, *, step: int, stem: bool) -> nn.Module:
    """The downsampling in front of a level: overlapping in the stem, 2 x 2 after it as in ConvNeXt."""
    kernel, padding = {(1, True): (3, 1), (2, True): (4, 1), (2, False): (2, 0), (1, False): (3, 1)}[step, stem]
    convolution = nn.Conv2d(inputs, outputs, kernel, step, padding=padding)
    if stem:
        return nn.Sequential(convolution, ChannelNorm(outputs), nn.GELU())
    return nn.Sequential(ChannelNorm(inputs), convolution)
