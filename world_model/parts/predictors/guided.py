"""A masked predictor with a guidance before each block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn

from jepa_mpc.shapes import check_shape
from jepa_mpc.world_model.parts.predictors.guidance import (
    FilmGuidance,
    Guidance,
    GuidanceSizes,
    ThinkerFeatures,
    ThoughtPyramid,
)
from jepa_mpc.world_model.parts.predictors.masked import Places, RotaryMaskedPredictor

MakeGuidance = Callable[..., Guidance]


class GuidedPredictor(nn.Module):
    """The masked predictor with one guidance in front of each block.

    With all gates closed it equals the unguided predictor bit for bit, except with `AdaNormGuidance`, whose norm
    remains. Positions are those of the unguided predictor: time, row and column. The released code uses a grid as wide
    as a frame has tokens, so that time becomes the row: `grid=(N, N)` does the same.

    Args:
        predictor: The unguided predictor.
        sizes: Sizes of the guidance.
        guidance: Makes the guidance of a layer from its width; a class of `GUIDANCE`.

    Reference: Zhang et al. 2026, arXiv:2603.22281.
    """

    def __init__(
        self, predictor: RotaryMaskedPredictor, *, sizes: GuidanceSizes, guidance: MakeGuidance = FilmGuidance
    ) -> None:
        super().__init__()
        width = predictor.sizes.width
        self.predictor = predictor
        self.thoughts = ThoughtPyramid(sizes.inputs, width)
        self.guides = nn.ModuleList(guidance(width, sizes=sizes) for _ in predictor.blocks)

    @property
    def gates(self) -> Annotated[Tensor, "L"]:
        """Opening of the gate of each layer, from -1 to 1."""
        return torch.stack([guide.get_parameter("gate") for guide in self.guides]).tanh()

    def forward(
        self,
        seen: Annotated[Tensor, "B K D"],
        seen_at: Places,
        wanted_at: Places,
        *,
        features: ThinkerFeatures,
        mask_token: int = 0,
    ) -> Annotated[Tensor, "B L D"]:
        """Predict the tokens at `wanted_at` with guidance; `self.predictor` predicts without.

        Args:
            seen: Encoded tokens `(B, K, inputs)`.
            seen_at: Their indices in the grid.
            wanted_at: Indices of the masked tokens.
            features: The thinker's features of each world.
            mask_token: Index of the mask token.

        Raises:
            ValueError: If the shapes do not fit each other or the network.
        """
        check_shape(features.frames, "B K", B=len(seen))
        thoughts = self.thoughts(features, len(self.guides))
        x, angles = self.predictor.enter(seen, seen_at, wanted_at, mask_token=mask_token)
        for guide, block, thought in zip(self.guides, self.predictor.blocks, thoughts, strict=True):
            x = block(guide(x, thought), angles)
        return self.predictor.to_wanted(self.predictor.norm(x)[:, seen.shape[1] :])
