"""H-JEPA (image pyramid) as its public code computes it, for comparison with `hjepa_pyramid`.

    loss = sum_l w_l mean |head_l(g(f(x * seen)))_l - head_l(f_ema(x)[hidden])_l|^2          w = 1, 1/2, 1/4

Reference: J. Wiggins, github.com/jonwiggins/H-JEPA (community code, no paper, no benchmark).  Differences: the target
starts as a copy of the encoder (the public code reinitialises both) and is updated after the optimiser step; the
momentum ends with the training and not after a fixed number of steps.  As in the public code: masked patches are zeroed
and still attended to, levels are means over runs of masked tokens, only masks of level 0 are used, and padding enters
the loss.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Generator

from jepa_mpc.encoders.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, NormalisePixels
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.vit import VisionTransformer, ViTSizes
from jepa_mpc.errors import choose
from jepa_mpc.world_model.parts.distances import SquaredError
from jepa_mpc.world_model.parts.masks.levels import LegacyLevelBlocks
from jepa_mpc.world_model.parts.objectives.legacy_pyramid import (
    BorrowedPlaces,
    LegacyFusion,
    LegacyPyramidObjective,
    RunPyramid,
)
from jepa_mpc.world_model.parts.predictors.masked import MaskedSizes
from jepa_mpc.world_model.parts.targets import EMATarget, linear_momentum


@dataclass(frozen=True, kw_only=True)
class LegacySizes:
    """Sizes of the public system.

    Args:
        encoder: Sizes of the encoder.
        depth: Blocks of the predictor, which is as wide as the encoder.
        weights: Weights of the levels, the finest first.
        fusion: "none", "add" or "concat".
        fusion_width: Width of the feature pyramid.
    """

    encoder: ViTSizes
    depth: int
    weights: tuple[float, ...] = (1.0, 0.5, 0.25)
    fusion: LegacyFusion = "none"
    fusion_width: int = 64


SMALL = LegacySizes(encoder=ViTSizes(image=64, patch=8, width=96, depth=4, heads=3, mlp_dim=384), depth=3)
PRESETS = {
    "base": LegacySizes(encoder=ViTSizes(image=224, patch=16, width=768, depth=12, heads=12, mlp_dim=3072), depth=6),
    "small": SMALL,
    "small_fpn": replace(SMALL, fusion="add"),
    "tiny": LegacySizes(encoder=ViTSizes(image=28, patch=7, width=32, depth=2, heads=2, mlp_dim=64), depth=1),
}


def build(
    *,
    preset: str | LegacySizes = "base",
    momentum: tuple[float, float] = (0.996, 1.0),
    generator: Generator | None = None,
    **parts: Any,
) -> LegacyPyramidObjective:
    """Assemble the training loss.

    Args:
        preset: A name of `PRESETS`, or custom sizes.
        momentum: Momentum of the target at the start and at the end of the training.
        generator: Draws all initial weights; by default the global stream is used.
        **parts: Further parts of `LegacyPyramidObjective`: distance, normed.

    Raises:
        UnknownName: If there is no such preset.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    inner, levels = sizes.encoder, len(sizes.weights)
    predictor = MaskedSizes(
        inputs=inner.width, outputs=inner.width, width=inner.width, depth=sizes.depth, heads=inner.heads,
        mlp_dim=inner.mlp_dim, mask_tokens=1, eps=1e-5,
    )  # fmt: skip
    networks = (
        VisionTransformer(inner, pool="dense"),
        BorrowedPlaces(predictor),
        RunPyramid(inner.width, levels=levels, fusion=sizes.fusion, fusion_width=sizes.fusion_width),
    )
    if generator is not None:
        for network in networks:
            draw_weights(network, generator)
    encoder, side = networks[0], inner.image // inner.patch
    return LegacyPyramidObjective(
        encoder=encoder, predictor=networks[1], pyramid=networks[2], weights=sizes.weights,
        target=EMATarget(encoder, momentum=linear_momentum(*momentum)),
        sampler=LegacyLevelBlocks(grid=(side, side), levels=levels),
        still=NormalisePixels(mean=IMAGENET_MEAN, std=IMAGENET_STD),
        **{"distance": SquaredError()} | parts,
    )  # fmt: skip
