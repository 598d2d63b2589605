"""Residual convolutional networks without final pooling: an image in, a coarse feature map out.

    y = relu(f(x) + shortcut(x));   stem: 7 x 7 by 2, max-pool by 2;   each stage but the first halves the map

Reference: He et al. 2016, arXiv:1512.03385.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

Norm = Callable[[int], nn.Module]


class ConvNorm(nn.Module):
    """A convolution without bias that keeps the size (up to its stride), and a norm.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        kernel: Side of the kernel.
        stride: Step of the kernel.
        norm: Builds the norm from its channels.
    """

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, norm: Norm = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`B C h w` in, `B C' h/stride w/stride` out."""
        return self.norm(self.conv(x))


class ResidualBlock(nn.Module):
    """Convolutions with ReLUs between them and a residual connection.

    Args:
        layers: The convolutions in their order.
        shortcut: Applied to the input on the residual path; by default the identity.
    """

    def __init__(self, layers: Sequence[ConvNorm], *, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.shortcut = shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`B C h w` to `B C' h' w'`."""
        inner = x
        for index, layer in enumerate(self.layers):
            inner = layer(inner) if index == 0 else layer(F.relu(inner))
        return F.relu(inner + self.shortcut(x))


Block = Callable[[int, int, int, Norm], ResidualBlock]


def basic(inputs: int, outputs: int, stride: int, norm: Norm) -> ResidualBlock:
    """Two 3 x 3 convolutions, as in the networks with 18 and 34 layers."""
    layers = [ConvNorm(inputs, outputs, stride=stride, norm=norm), ConvNorm(outputs, outputs, norm=norm)]
    return ResidualBlock(layers, shortcut=_shortcut(inputs, outputs, stride, norm))


def bottleneck(inputs: int, outputs: int, stride: int, norm: Norm) -> ResidualBlock:
    """1 x 1, 3 x 3 (with the stride) and 1 x 1 convolutions, narrow in the middle, as in the network with 50 layers."""
    narrow = outputs // 4
    layers = [
        ConvNorm(inputs, narrow, kernel=1, norm=norm),
        ConvNorm(narrow, narrow, stride=stride, norm=norm),
        ConvNorm(narrow, outputs, kernel=1, norm=norm),
    ]
    return ResidualBlock(layers, shortcut=_shortcut(inputs, outputs, stride, norm))


class ResNet(nn.Module):
    """The trunk of a residual network.

    Args:
        stem: Channels after the first convolution.
        widths: Channels of each stage.
        depths: Blocks of each stage.
        block: Builds a block from channels in, channels out, stride and norm: `basic` or `bottleneck`.
        norm: Builds a norm from its channels.
        channels: Channels of the image.

    Raises:
        ValueError: If the numbers of widths and depths differ.
    """

    def __init__(
        self,
        *,
        stem: int = 64,
        widths: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 2, 2),
        block: Block = basic,
        norm: Norm = nn.BatchNorm2d,
        channels: int = 3,
    ) -> None:
        super().__init__()
        if not widths or len(widths) != len(depths) or min(depths) < 1:
            raise ValueError(f"need a width and at least one block for each stage, got {widths} and {depths}")
        self.channels, self.width = channels, int(widths[-1])
        self.stem = ConvNorm(channels, stem, kernel=7, stride=2, norm=norm)
        stages, inputs = [], stem
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            first = block(inputs, width, 1 if number == 0 else 2, norm)
            stages.append(nn.Sequential(first, *(block(width, width, 1, norm) for _ in range(depth - 1))))
            inputs = width
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> Tensor:
        """Images `B C h w` to features `B width h/s w/s` with s = 4 * 2^(stages - 1), rounded up."""
        return self.stages(F.max_pool2d(F.relu(self.stem(x)), 3, stride=2, padding=1))


def _shortcut(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Module | None:
    if inputs == outputs and stride == 1:
        return None
    return ConvNorm(inputs, outputs, kernel=1, stride=stride, norm=norm)
