"""Stand-ins for a thinker: features of a sparse view from our own frozen encoder, without a language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from jepa_mpc.encoders.layers.normed import LatentNorm
from jepa_mpc.encoders.layers.positions import sincos_1d
from jepa_mpc.encoders.video import VideoTransformer
from jepa_mpc.types import Frames
from jepa_mpc.world_model.parts.predictors.guidance import ThinkerFeatures


class Thinker(Protocol):
    """Computes features of some observed frames."""

    def __call__(self, encoder: VideoTransformer, images: Frames, frames: Sequence[int]) -> ThinkerFeatures:
        """Features of prepared images `B K C h w`, which are the window's `frames`."""


@dataclass(frozen=True, kw_only=True)
class DepthTokens:
    """Tokens of every sparse frame at several depths of a frozen encoder, instead of a language model's hidden states.

    `old` are the normalised tokens of all frames plus a sine embedding of the frame index; `new`, in place of a
    language model's output, are the mean changes between sparse frames. This is visual memory: it contains no
    information beyond the frames.

    Args:
        at: Blocks of the encoder, from 0; the first one guides the first layer of the predictor. None for an encoder
            that only outputs its last tokens.
    """

    at: Sequence[int] | None

    @torch.no_grad()
    def __call__(self, encoder: VideoTransformer, images: Frames, frames: Sequence[int]) -> ThinkerFeatures:
        """Features of prepared images `B K C h w`, which are the window's `frames`."""
        batch, views = images.shape[:2]
        norm = LatentNorm()
        seen = images.flatten(0, 1)
        depths = [norm(x) for x in ([encoder(seen)] if self.at is None else encoder.depths(seen, at=self.at))]
        tokens = torch.stack(depths, dim=1).unflatten(0, (batch, views)).transpose(1, 2)  # (B, L, K, N, D)
        numbers = torch.tensor(frames, device=images.device)
        times = sincos_1d(numbers, tokens.shape[-1]).to(tokens.dtype)
        changes = tokens.mean(dim=3).diff(dim=2)  # (B, L, K - 1, D)
        old = (tokens + times[:, None]).flatten(2, 3)
        return ThinkerFeatures(
            old=old, old_mask=_all(old), new=changes, new_mask=_all(changes), frames=numbers.expand(batch, -1)
        )


@dataclass(frozen=True, kw_only=True)
class OthersThoughts:
    """The control: every world gets the features of another world in the batch.

    Args:
        thinker: Computes the features.
    """

    thinker: Thinker

    def __call__(self, encoder: VideoTransformer, images: Frames, frames: Sequence[int]) -> ThinkerFeatures:
        """Features of another world's images."""
        return self.thinker(encoder, images.roll(1, dims=0), frames)


def _all(states: Tensor) -> Tensor:
    return torch.ones(states.shape[0], states.shape[2], dtype=torch.bool, device=states.device)
