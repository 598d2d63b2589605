"""Where an object is that another image shows: images of a hand camera are matched.

    f = features(now),  g = features(shown)
    q = sum over pixels of softmax(heat(g)) * key(g)            what is shown, at its place
    m = <key(f) / |key(f)|, q / |q|>                            how much each place of the present image resembles it
    object seen from the hand, and the expected error = head(keypoints, features where the matched map is hot, height)

An object differs from clutter in one respect only: it is the one that the other image shows in or below the hand. So
the matching, not the look of the object, says which of several things is meant; in images with new colours and things,
too. The image tells its direction; with the height of the hand, which is felt, that gives its distance. All images are
standardised by the one that shows the object: colours are compared, exposure and tint removed.

Soft arg-max: Finn et al. 2016 (arXiv:1509.06113); matching features of two images at all places: Bertinetto et al.
2016 (arXiv:1606.09549).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from jepa_mpc.encoders.convnet import CHANNELS_PER_CAMERA, KeypointTrunk, Residual, SoftArgMax

UNIT_M = 0.1
LOG_SCALES = (-5.0, 2.0)  # expected errors are kept between 0.7 % and 740 % of the unit
SHARPNESS = 5.0


class ObjectFinder(nn.Module):
    """Images of one hand camera, and one that shows an object, to the object's position seen from the hand in each.

    Args:
        widths: Channels of the trunk at 1/2, 1/4, 1/8 and 1/16 of the resolution.
        keypoints: Heat maps of the matched image.
        hidden: Width of the joining network.
    """

    def __init__(self, *, widths: Sequence[int] = (16, 32, 64, 96), keypoints: int = 8, hidden: int = 128) -> None:
        super().__init__()
        fine, coarse = widths[1], widths[3]
        self.trunk = KeypointTrunk(widths=widths, keypoints=1)
        self.key = nn.Conv2d(fine, fine, 1)
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS))
        self.mix = nn.Sequential(
            nn.Conv2d(fine + 1, fine, 3, padding=1), nn.GroupNorm(8, fine), nn.GELU(), Residual(fine)
        )
        self.heat = nn.Conv2d(fine, keypoints, 1)
        self.points = SoftArgMax()
        self.join = nn.Sequential(
            nn.Linear(2 * keypoints + 2 * fine + coarse + 2, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, 4),
        )

    def forward(
        self, now: Tensor, shown: Tensor, height: Annotated[Tensor, "B T"]
    ) -> tuple[Annotated[Tensor, "B T 3"], Annotated[Tensor, "B T"]]:
        """Position (in units of 10 cm, in the axes of the hand's position) and the logarithm of its expected error.

        Args:
            now: Images `B T 3 h w`, of any scale.
            shown: Images `B 3 h w` of the same camera and scale that show the object in or below the hand.
            height: Height of the hand (m) in `now`.

        Raises:
            ValueError: If they are not colour images, or their numbers differ.
        """
        if now.dim() != 5 or now.shape[2] != CHANNELS_PER_CAMERA or shown.shape != now[:, 0].shape:
            raise ValueError(
                f"expected images (B, T, 3, h, w) and (B, 3, h, w), got {tuple(now.shape)}, {tuple(shown.shape)}"
            )
        worlds, times = now.shape[:2]
        if height.shape != now.shape[:2]:
            raise ValueError(f"expected heights of the hand ({worlds}, {times}), got {tuple(height.shape)}")
        spread, centre = torch.std_mean(shown, dim=(-2, -1), keepdim=True)
        images = torch.cat([shown[:, None], now], dim=1)
        fine, deep = self.trunk.features(((images - centre[:, None]) / (spread[:, None] + 1e-3)).flatten(0, 1))
        fine, deep = (maps.unflatten(0, (worlds, times + 1)) for maps in (fine, deep))
        goal, fine, deep = fine[:, 0], fine[:, 1:].flatten(0, 1), deep[:, 1:].flatten(0, 1)
        looked_at = self.trunk.heat(goal).flatten(2).softmax(dim=-1)  # (B, 1, h/4 w/4)
        wanted = functional.normalize((self._keys(goal).flatten(2) * looked_at).sum(dim=-1), dim=1)
        wanted = wanted.repeat_interleave(times, dim=0)
        match = (self._keys(fine) * wanted[..., None, None]).sum(dim=1, keepdim=True)
        mixed = self.mix(torch.cat([fine, self.sharpness * match], dim=1))
        heat = self.heat(mixed)
        hot = heat[:, :1].flatten(2).softmax(dim=-1)
        there = [(maps.flatten(2) * hot).sum(dim=-1) for maps in (fine, mixed, match)]
        whole, high = deep.mean(dim=(-2, -1)), height.flatten()[:, None] / UNIT_M
        told = self.join(torch.cat([self.points(heat).flatten(1), *there, whole, high], dim=-1))
        told = told.unflatten(0, (worlds, times))
        return told[..., :3], told[..., 3].clamp(*LOG_SCALES)

    @torch.no_grad()
    def find(
        self, now: Tensor, shown: Tensor, height: Annotated[Tensor, "T"]
    ) -> tuple[Annotated[Tensor, "T 3"], Annotated[Tensor, "T"]]:
        """Position of the object seen from the hand and the expected error (m), of frames `T 3 h w` of 0..255.

        Args:
            now: The frames.
            shown: Frame `3 h w` that shows the object.
            height: Height of the hand (m) in `now`.
        """
        place, log_scale = self(now[None].float() / 255, shown[None].float() / 255, height[None].float())
        return UNIT_M * place[0], UNIT_M * log_scale[0].exp()

    def _keys(self, features: Tensor) -> Tensor:
        return functional.normalize(self.key(features), dim=1)
