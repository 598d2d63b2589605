"""Eyes that see the table, and one on the hand: a network and a token for each."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from jepa_mpc.encoders.convnet import CHANNELS_PER_CAMERA, KeypointEncoder
from jepa_mpc.encoders.remembered import Remembered
from jepa_mpc.types import State


class HandEyeEncoder(nn.Module):
    """Frames of the scene's cameras to one token, those of the camera on the hand to another (N = 2).

    What the scene's cameras see depends on where they stand, what the wrist sees does not: object and fingers are
    always seen from the hand. So neither shares anything with the other; the predictor brings them together.

    Args:
        scene: Encodes the scene's cameras, which come first among the channels.
        wrist: Encodes the camera on the hand.

    Raises:
        ValueError: If the two are not equally wide.
    """

    def __init__(self, *, scene: KeypointEncoder | Remembered, wrist: KeypointEncoder) -> None:
        super().__init__()
        if scene.width != wrist.width:
            raise ValueError(f"the tokens of scene and wrist must be equally wide, got {scene.width}, {wrist.width}")
        self.scene, self.wrist, self.width = scene, wrist, scene.width

    def forward(self, x: Tensor, keep: Annotated[Tensor, "B K"] | None = None) -> State:
        """Encode pictures.

        Args:
            x: Float pictures `B C h w`, C = 3 per camera, any scale.
            keep: Must be None: both tokens count.

        Returns:
            Latents `B 2 D`.

        Raises:
            ValueError: If the channels do not fit the cameras, or `keep` is given.
        """
        if keep is not None:
            raise ValueError("the tokens of scene and wrist belong together; none of them can be left out")
        channels = CHANNELS_PER_CAMERA * self.scene.num_cameras
        return torch.cat([self.scene(x[:, :channels]), self.wrist(x[:, channels:])], dim=1)
