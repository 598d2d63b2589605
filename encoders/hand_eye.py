"""An encoder for scene cameras and a wrist camera, with a separate network and token for each."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from jepa_mpc.encoders.convnet import CHANNELS_PER_CAMERA, KeypointEncoder
from jepa_mpc.encoders.remembered import Remembered
from jepa_mpc.types import State


class HandEyeEncoder(nn.Module):
    """Frames of the scene cameras to one token, those of the wrist camera to another (N = 2).

    The scene images depend on the camera poses, the wrist image does not: it always shows object and fingers relative
    to the hand. So the two share no weights; the predictor combines them.

    Args:
        scene: Encodes the scene cameras, which come first among the channels.
        wrist: Encodes the wrist camera.

    Raises:
        ValueError: If their widths differ.
    """

    def __init__(self, *, scene: KeypointEncoder | Remembered, wrist: KeypointEncoder) -> None:
        super().__init__()
        if scene.width != wrist.width:
            raise ValueError(f"the tokens of scene and wrist must be equally wide, got {scene.width}, {wrist.width}")
        self.scene, self.wrist, self.width = scene, wrist, scene.width

    def forward(self, x: Tensor, keep: Annotated[Tensor, "B K"] | None = None) -> State:
        """Encode images.

        Args:
            x: Float images `B C h w`, C = 3 per camera, any scale.
            keep: Must be None: both tokens are needed.

        Returns:
            Latents `B 2 D`.

        Raises:
            ValueError: If the channels do not fit the cameras, or `keep` is given.
        """
        if keep is not None:
            raise ValueError("the tokens of scene and wrist are both needed: keep must be None")
        channels = CHANNELS_PER_CAMERA * self.scene.num_cameras
        return torch.cat([self.scene(x[:, :channels]), self.wrist(x[:, channels:])], dim=1)
