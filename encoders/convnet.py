"""A small convolutional encoder of positions: feature maps become keypoints by a soft arg-max.

    p_k = sum over pixels of softmax(heat_k) * (x, y)   (spatial soft arg-max: Finn et al. 2016, arXiv:1509.06113)

Keypoints move with the robot, are robust to changes of colour and have subpixel resolution. This lets a model of half a
million parameters train on a laptop and resolve centimetres at 64 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from jepa_mpc.types import State

CHANNELS_PER_CAMERA = 3


class Residual(nn.Module):
    """Two 3 x 3 convolutions with a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`B C h w` in and out."""
        return functional.gelu(x + self.layers(x))


def standardised(pictures: Tensor) -> Tensor:
    """Each channel of each image `B 3 h w` standardised to mean 0 and std 1: removes exposure and tint."""
    spread, centre = torch.std_mean(pictures, dim=(-2, -1), keepdim=True)
    return (pictures - centre) / (spread + 1e-3 * (1 + centre.abs()))


def halve(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """A convolution of stride 2 with norm and activation."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, 2, padding=1), nn.GroupNorm(8, outputs), nn.GELU())


class SoftArgMax(nn.Module):
    """Heat maps `B K h w` to their centres of mass `B K 2`, in [-1, 1] (x right, y down)."""

    def forward(self, heat: Tensor) -> Tensor:
        """Expected position under the softmax of each map."""
        height, width = heat.shape[-2:]
        mass = heat.flatten(2).softmax(-1).unflatten(2, (height, width))
        x = torch.linspace(-1, 1, width, device=heat.device, dtype=heat.dtype)
        y = torch.linspace(-1, 1, height, device=heat.device, dtype=heat.dtype)
        return torch.stack([mass.sum(-2) @ x, mass.sum(-1) @ y], dim=-1)


class KeypointTrunk(nn.Module):
    """One image to a vector: keypoints from a feature map of quarter resolution with a global receptive field.

    Args:
        widths: Channels at 1/2, 1/4, 1/8 and 1/16 of the resolution.
        keypoints: Number of keypoints.
        channels: Channels of the images.
    """

    def __init__(self, *, widths: Sequence[int], keypoints: int, channels: int = CHANNELS_PER_CAMERA) -> None:
        super().__init__()
        half, quarter, eighth, coarse = widths
        self.stem = nn.Sequential(halve(channels, half, 4), halve(half, quarter, 3), Residual(quarter))
        self.middle = nn.Sequential(halve(quarter, eighth, 3), Residual(eighth))
        self.deep = nn.Sequential(halve(eighth, coarse, 3), Residual(coarse))
        self.deep_to_middle = nn.Conv2d(coarse, eighth, 1)
        self.middle_to_stem = nn.Conv2d(eighth, quarter, 1)
        self.heat = nn.Conv2d(quarter, keypoints, 1)
        self.points = SoftArgMax()
        self.width = 2 * keypoints + coarse

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images `B C h w` to features of quarter resolution `B C h/4 w/4` and the coarsest ones `B C h/16 w/16`."""
        fine = self.stem(x)
        middle = self.middle(fine)
        deep = self.deep(middle)
        middle = middle + functional.interpolate(self.deep_to_middle(deep), size=middle.shape[-2:])
        return functional.gelu(fine + functional.interpolate(self.middle_to_stem(middle), size=fine.shape[-2:])), deep

    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images `B C h w` to heat maps `B K h/4 w/4` and the coarsest features `B C h/16 w/16`."""
        fine, deep = self.features(x)
        return self.heat(fine), deep

    def forward(self, x: Tensor) -> Tensor:
        """Images `B C h w` to vectors `B width`."""
        heat, deep = self.look(x)
        return torch.cat([self.points(heat).flatten(1), deep.mean(dim=(-2, -1))], dim=-1)


class KeypointEncoder(nn.Module):
    """Frames of one or several cameras to one latent vector per frame (N = 1).

    Each image is standardised separately (to remove exposure and tint), all cameras share one trunk, and a small
    network joins their outputs.

    Args:
        num_cameras: Number of cameras whose channels are stacked.
        width: Latent width D.
        widths: Channels of the trunk at 1/2, 1/4, 1/8 and 1/16 of the resolution.
        keypoints: Keypoints per image.
        hidden: Width of the joining network.
    """

    def __init__(
        self,
        *,
        num_cameras: int = 2,
        width: int = 64,
        widths: Sequence[int] = (16, 32, 64, 96),
        keypoints: int = 32,
        hidden: int = 256,
    ) -> None:
        super().__init__()
        self.num_cameras, self.width = num_cameras, width
        self.trunk = KeypointTrunk(widths=widths, keypoints=keypoints)
        self.join = nn.Sequential(
            nn.Linear(num_cameras * self.trunk.width, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, width),
        )

    def forward(self, x: Tensor, keep: Annotated[Tensor, "B K"] | None = None) -> State:
        """Encode images.

        Args:
            x: Float images `B C h w`, C = 3 per camera, any scale.
            keep: Must be None: there is only one token.

        Returns:
            Latents `B 1 D`.

        Raises:
            ValueError: If the channels do not fit the number of cameras, or `keep` is given.
        """
        if keep is not None:
            raise ValueError("a keypoint encoder has a single token: keep must be None")
        if x.dim() != 4 or x.shape[1] != CHANNELS_PER_CAMERA * self.num_cameras:
            expected = CHANNELS_PER_CAMERA * self.num_cameras
            raise ValueError(f"expected images (B, {expected}, h, w), got {tuple(x.shape)}")
        views = x.unflatten(1, (self.num_cameras, CHANNELS_PER_CAMERA)).flatten(0, 1)  # (B V, 3, h, w)
        seen = self.trunk(standardised(views))
        return self.join(seen.unflatten(0, (-1, self.num_cameras)).flatten(1))[:, None]
