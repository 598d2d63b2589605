"""A convolutional network as an encoder: each position of its last map becomes a token with a positional embedding.

tokens = rows of (W features + places)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from torch import Tensor, nn

from jepa_mpc.encoders.layers.interleaved import alternating_grid
from jepa_mpc.encoders.resnet import ResNet
from jepa_mpc.errors import BadObservation
from jepa_mpc.types import State


class FeatureGrid(nn.Module):
    """Tokens of images of one or several cameras, which share the network; row-major, camera after camera.

    Args:
        trunk: Maps images `B 3 h w` to features `B C h' w'`; has `width` = C.
        width: Width D of the tokens, a multiple of four.
        num_cameras: Number of cameras whose channels are stacked.

    Reference: the image branch of ACT (Zhao et al. 2023, arXiv:2304.13705) and of ACT-JEPA (arXiv:2501.14622).
    """

    def __init__(self, trunk: nn.Module, *, width: int, num_cameras: int = 1) -> None:
        super().__init__()
        inputs: Any = trunk.width
        self.trunk = trunk
        self.project = nn.Conv2d(inputs, width, 1)
        self.width, self.num_cameras = width, num_cameras

    def forward(self, x: Tensor, keep: Annotated[Tensor, "B K"] | None = None) -> State:
        """Encode images `B C h w`, C = 3 per camera, to `B N D`; `keep` selects tokens.

        Raises:
            BadObservation: If the channels do not fit the cameras.
        """
        if x.dim() != 4 or x.shape[1] != 3 * self.num_cameras:
            raise BadObservation(f"expected images (B, {3 * self.num_cameras}, h, w), got {tuple(x.shape)}")
        views = x.unflatten(1, (self.num_cameras, 3)).flatten(0, 1)  # (B V, 3, h, w)
        grid = self.project(self.trunk(views))
        rows, columns = grid.shape[2:]
        places = alternating_grid(rows, columns, self.width, device=grid.device).to(grid.dtype)
        tokens = (grid.flatten(2).transpose(1, 2) + places).unflatten(0, (len(x), -1)).flatten(1, 2)  # (B, N, D)
        return tokens if keep is None else tokens.gather(1, keep[:, :, None].expand(-1, -1, self.width))


def resnet_grid(
    *,
    width: int = 64,
    num_cameras: int = 1,
    stem: int = 16,
    widths: Sequence[int] = (16, 32, 64),
    depths: Sequence[int] = (1, 1, 1),
) -> FeatureGrid:
    """Tokens of a residual network: images of 64 px give 4 x 4 tokens per camera.

    Args:
        width: Width D of the tokens, a multiple of four.
        num_cameras: Number of cameras whose channels are stacked.
        stem: Channels after the first convolution.
        widths: Channels of each stage; each but the first halves the resolution.
        depths: Blocks of each stage.

    Raises:
        ValueError: If the numbers of widths and depths differ.
    """
    trunk = ResNet(stem=stem, widths=widths, depths=depths)
    return FeatureGrid(trunk, width=width, num_cameras=num_cameras)
