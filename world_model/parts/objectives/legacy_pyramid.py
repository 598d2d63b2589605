"""The public hierarchical JEPA code, for comparison: masked tokens are zeroed, levels are runs of masked tokens.

    seen = f(patches * (1 - mask));   predicted = g(seen, mask tokens);   wanted = f_ema(x)[mask]
    level l of both: head_l, then means of 2^l neighbours in the list of masked tokens (or a feature pyramid over them)
    loss = sum_l w_l d(predicted_l, wanted_l)

Lists are padded to the longest of the batch with token 0; the caller chooses whether padding enters the loss. Targets
pass the same learned heads as predictions, without a gradient.

Reference: J. Wiggins, github.com/jonwiggins/H-JEPA (no paper).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from jepa_mpc.encoders.vit import VisionTransformer
from jepa_mpc.errors import BadObservation
from jepa_mpc.interfaces import Batch
from jepa_mpc.types import Frames, Latents, Loss, State
from jepa_mpc.world_model.parts.distances import Distance
from jepa_mpc.world_model.parts.masks.levels import LegacyLevelBlocks
from jepa_mpc.world_model.parts.objectives.dynamics import total_of
from jepa_mpc.world_model.parts.objectives.masked import Prepare, gather_tokens
from jepa_mpc.world_model.parts.predictors.masked import MaskedPredictor, MaskedSizes
from jepa_mpc.world_model.parts.targets import EMATarget

LegacyFusion = Literal["none", "add", "concat"]


class BorrowedPlaces(MaskedPredictor):
    """The predictor of that code: as wide as the encoder, whose positional embeddings it adds to its mask tokens.

    Args:
        sizes: All sizes; tokens enter without a projection.
    """

    def __init__(self, sizes: MaskedSizes) -> None:
        super().__init__(sizes, nn.Identity())
        self.embed = nn.Identity()

    def answer(self, seen: State, places: State) -> State:
        """Predictions `(B, L, D)` from tokens `(B, K, D)`, for mask tokens at `places` `(B, L, D)`."""
        x = torch.cat([seen, self.mask_tokens[0] + places], dim=1)
        for block in self.blocks:
            x = block(x, None)
        return self.to_wanted(self.norm(x[:, seen.shape[1] :]))


class RunPyramid(nn.Module):
    """Levels over a list of tokens: heads, and means of 2^l neighbours, with or without a feature pyramid.

    Args:
        width: Width D of the tokens.
        levels: Number of levels.
        fusion: "none": head, then means; otherwise means, a feature pyramid that adds or concatenates, then heads.
        fusion_width: Width of the feature pyramid.
    """

    def __init__(self, width: int, *, levels: int, fusion: LegacyFusion = "none", fusion_width: int = 64) -> None:
        super().__init__()
        if fusion not in ("none", "add", "concat"):
            raise ValueError(f"fusion must be 'none', 'add' or 'concat', got {fusion!r}")
        self.fusion = fusion
        joins = levels - 1 if fusion != "none" else 0
        self.heads = _layers(width if fusion == "none" else fusion_width, width, levels)
        self.lateral = _layers(width, fusion_width, levels if joins else 0)
        self.down = _layers(fusion_width, fusion_width, joins)
        self.fuse = _layers(2 * fusion_width, fusion_width, joins if fusion == "concat" else 0)

    def forward(self, tokens: State) -> list[State]:
        """Tokens `(B, L, D)` to those of each level `(B, L // 2^l, D)`."""
        if self.fusion == "none":
            return [shortened(head(tokens), level) for level, head in enumerate(self.heads)]
        found = [lateral(shortened(tokens, level)) for level, lateral in enumerate(self.lateral)]
        for level in range(len(found) - 2, -1, -1):
            found[level] = self._joined(level, found[level], found[level + 1])
        return [head(features) for head, features in zip(self.heads, found, strict=True)]

    def _joined(self, level: int, own: State, above: State) -> State:
        if above.shape[1] != own.shape[1]:
            above = F.interpolate(above.transpose(1, 2), size=own.shape[1], mode="linear").transpose(1, 2)
        above = self.down[level](above)
        return own + above if self.fusion == "add" else self.fuse[level](torch.cat([own, above], dim=-1)).relu()


class LegacyPyramidObjective(nn.Module):
    """The training loss of that code.

    Args:
        encoder: Has a summary token, and learned positional embeddings that the predictor uses, too.
        predictor: Predicts the masked tokens.
        pyramid: Makes the levels of predictions and targets.
        target: EMA copy of the encoder.
        sampler: Draws the masks; only its targets are used, as in that code.
        distance: Between the tokens of a level.
        weights: Weights of the levels.
        still: Prepares single frames `G C h w` for the encoder.
        normed: Whether tokens are normalised to unit length before comparison.
    """

    def __init__(
        self,
        *,
        encoder: VisionTransformer,
        predictor: BorrowedPlaces,
        pyramid: RunPyramid,
        target: EMATarget,
        sampler: LegacyLevelBlocks,
        distance: Distance,
        weights: Sequence[float],
        still: Prepare,
        normed: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.predictor, self.pyramid, self.target = encoder, predictor, pyramid, target
        self.sampler, self.distance, self.weights = sampler, distance, tuple(weights)
        self.still, self.normed = still, normed

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of one batch: each frame of `frames` `B T C h w` is a sample."""
        images = self.still(batch["frames"].flatten(0, 1))
        _, targets = self.sampler.draw(len(images), generator)
        predicted, wanted, _ = self.levels(images, targets.any(dim=1).to(images.device))
        terms = self.compare(predicted, wanted)
        return total_of({f"level_{level}": pair for level, pair in enumerate(terms)})

    def levels(self, images: Tensor, hidden: Tensor) -> tuple[list[State], list[State], Tensor]:
        """Predictions and targets of each level, and the mask of the finest ones that are not padding `(B, L)`.

        Args:
            images: Prepared images `(B, C, h, w)`.
            hidden: `(B, N)`, True for masked tokens.

        Raises:
            BadObservation: If the images are not of the size that the masks and positions are made for.
        """
        side = self.encoder.sizes.image
        if tuple(images.shape[-2:]) != (side, side):
            got = " x ".join(map(str, images.shape[-2:]))
            raise BadObservation(f"expected images of {side} x {side}, got {got}: pass image_size={side}")
        at, real = listed(hidden)
        seen = self.seen(images, hidden)[:, 1:]
        places = self.encoder.positions[:, 1:].expand(len(images), -1, -1)
        predicted = self.predictor.answer(seen, gather_tokens(places, at))
        wanted = gather_tokens(self.target(images, None), at)
        return self.pyramid(predicted), [level.detach() for level in self.pyramid(wanted)], real

    def seen(self, images: Tensor, hidden: Tensor) -> State:
        """All tokens of images whose masked patches are zero, the summary token first."""
        return self.encoder.through(self.encoder.embed(images) * ~hidden[:, :, None])

    def compare(
        self, predicted: Sequence[State], wanted: Sequence[State], real: Tensor | None = None
    ) -> list[tuple[float, Tensor]]:
        """Weight and distance of each level.

        Args:
            predicted: Tokens of each level.
            wanted: Their targets.
            real: `(B, L)`: only these tokens of the finest level are used, and the distance is a sum over channels, as
                in the public code; by default all are used, as in its trainer.
        """
        distances = []
        for level, (one, other) in enumerate(zip(predicted, wanted, strict=True)):
            one, other = (F.normalize(x, dim=-1) if self.normed else x for x in (one, other))
            if real is None:
                distances.append(self.distance(one, other))
                continue
            counts = (shortened(real[..., None].float(), level) > 0.5).float()
            share = one.numel() / (counts.sum() + 1e-8)
            distances.append(self.distance(one * counts, other * counts) * share)
        return list(zip(self.weights, distances, strict=True))

    def encode(self, frames: Frames) -> Latents:
        """The target's patch tokens of each frame separately: uint8 `B T C h w` to `B T N D`."""
        return self.published(self.still(frames.flatten(0, 1))).unflatten(0, frames.shape[:2])

    @property
    def published(self) -> nn.Module:
        """The encoder for other systems: the target's."""
        return self.target.encoder

    def after_step(self, progress: float) -> None:
        """Update the target after an optimiser step (the public code does so before it)."""
        self.target.update(self.encoder, progress)


def listed(hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of masked tokens `(B, L)`, ascending and padded with 0, and the mask of entries that are not padding.

    Args:
        hidden: `(B, N)`, True for masked tokens.
    """
    counts = hidden.sum(dim=1, keepdim=True)
    order = (~hidden).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(counts.max())]
    real = torch.arange(order.shape[1], device=hidden.device) < counts
    return order * real, real


def shortened(tokens: Tensor, level: int) -> Tensor:
    """Means of 2^level neighbours of `(B, L, D)`; an incomplete run is dropped."""
    return F.avg_pool1d(tokens.transpose(1, 2), 2**level).transpose(1, 2) if level else tokens


def _layers(inputs: int, outputs: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Sequential(nn.Linear(inputs, outputs), nn.LayerNorm(outputs)) for _ in range(count))
