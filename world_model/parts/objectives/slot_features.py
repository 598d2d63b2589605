"""Training of slots on video: reconstruct each frame's features, and predict their motion to the next frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from jepa_mpc.encoders.layers.pixels import NormalisePixels
from jepa_mpc.encoders.slot_broadcast import BroadcastDecoder
from jepa_mpc.encoders.slot_decoder import SlotMixer
from jepa_mpc.encoders.slots import SlotEncoder
from jepa_mpc.interfaces import Batch
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Frames, Latents, Loss
from jepa_mpc.world_model.parts.objectives.dynamics import total_of
from jepa_mpc.world_model.parts.targets import SharedTarget

FrameFeatures = Annotated[Tensor, "B T L C"]
Reader = Callable[[Tensor], Tensor]


class PixelPatches(nn.Module):
    """Raw pixel patches as features, used without a trained feature network.

    Args:
        patch: Side of a patch in pixels.
    """

    def __init__(self, *, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, x: Tensor) -> Annotated[Tensor, "G L C"]:
        """Images `(G, C, h, w)` to patches `(G, L, C patch patch)`, row-major."""
        return F.unfold(x, self.patch, stride=self.patch).transpose(1, 2)


class SlotFeatureObjective(nn.Module):
    """Slots that reconstruct features and predict the motion of every position.

        loss = |d(s_t) - f_t|^2 + w * CE(logits of d(s_t), softmax(cos(k_t, k_t+1) / tau))

    Args:
        encoder: Images to slots.
        decoder: Slots to features and, if `weight` is not 0, one logit per position of the next frame.
        features: Computes the reconstruction targets from prepared images: `(G, C, h, w)` to `(G, L, C')`; gets no
            gradient. By default the encoder's own features, which must be frozen then.
        keys: Computes the features compared over time; by default `features`.
        weight: w; 0 omits the second term.
        temperature: tau.
        preprocess: Prepares frames for the encoder.

    Reference: Zadaianchuk et al. 2023, arXiv:2306.04829, equations 2 to 5.
    """

    def __init__(
        self,
        *,
        encoder: SlotEncoder,
        decoder: SlotMixer | BroadcastDecoder,
        features: Reader | None = None,
        keys: Reader | None = None,
        weight: float = 0.3,
        temperature: float = 0.15,
        preprocess: Callable[[Frames], Frames] | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.features, self.keys = encoder, decoder, features, keys
        self.weight, self.temperature = weight, temperature
        self.preprocess = preprocess or NormalisePixels()
        self.target = SharedTarget()

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of a batch with `frames` B T C h w."""
        frames = batch["frames"]
        sizes = check_shape(frames, "B T C h w")
        images = self.preprocess(frames.flatten(0, 1))
        with torch.no_grad():
            wanted = (self.features or self.encoder.features)(images)
            keys = wanted if self.keys is None else self.keys(images)
        times = (sizes["B"], sizes["T"])
        slots = self.encoder.track(images.unflatten(0, times), generator=generator).slots
        rebuilt, _ = self.decoder(slots.flatten(0, 1))
        return self.loss(rebuilt.unflatten(0, times), wanted.unflatten(0, times), keys.unflatten(0, times))

    def loss(self, rebuilt: FrameFeatures, wanted: FrameFeatures, keys: FrameFeatures) -> Loss:
        """The loss of the decoder's output `B T L C'`, features first and logits after them."""
        target = similarity(keys, temperature=self.temperature) if self.weight else None
        return self.combine(rebuilt, wanted=wanted, target=target, weight=self.weight)

    @staticmethod
    def combine(rebuilt: FrameFeatures, *, wanted: FrameFeatures, target: Tensor | None, weight: float) -> Loss:
        """Both terms; `target` gives the motion of positions `B T-1 L L`, None omits that term."""
        width = wanted.shape[-1]
        weighted = {"features": (1.0, F.mse_loss(rebuilt[..., :width], wanted))}
        if target is not None:
            weighted["movement"] = (weight, movement_gap(rebuilt[:, :-1, :, width:], target))
        return total_of(weighted)

    def encode(self, frames: Frames) -> Latents:
        """Slots of camera frames `(B, T, C, h, w)`, tracked over time."""
        sizes = check_shape(frames, "B T C h w")
        images = self.preprocess(frames.flatten(0, 1))
        return self.encoder.track(images.unflatten(0, (sizes["B"], sizes["T"]))).slots

    def after_step(self, progress: float) -> None:
        """Does nothing."""


def similarity(keys: FrameFeatures, *, temperature: float, threshold: float = 0.0) -> Annotated[Tensor, "B T-1 L L"]:
    """Motion of positions to the next frame: softmax over positions of the cosine similarity of their keys.

    Cosines below the threshold are masked; a position similar to none may go anywhere.
    """
    unit = F.normalize(keys, dim=-1)
    cosines = unit[:, :-1] @ unit[:, 1:].transpose(-2, -1)  # (B, T-1, L, L)
    logits = (cosines / temperature).masked_fill(cosines < threshold, -torch.inf)
    lost = (cosines < threshold).all(dim=-1, keepdim=True)
    return torch.where(lost, 0.0, logits).softmax(dim=-1)


def movement_gap(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of logits `... L` against distributions `... L`."""
    return -(target * logits.log_softmax(dim=-1)).sum(dim=-1).mean()
