"""MC-JEPA: one pyramid encoder that learns motion (self-supervised flow) and content (VICReg) jointly.

    loss = VICReg(two views) + alpha * (reconstruction + smooth + regression + cycle + variance-covariance)

Reference: Bardes et al. 2023, arXiv:2307.12698.  No code or weights were published; this follows the paper's
description at small scale and claims none of its figures.  Ours: how the stem's two convolutions split the stride
("paper"), the weights of the terms, and the normalisation of features before comparison.  Pairs are neighbouring frames
of one log, and both branches use the same images where the paper has two data sets.  "small" is for one CPU core and
images of 64 px.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Generator

from jepa_mpc.encoders.layers.pixels import NormalisePixels
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.pyramid import PyramidEncoder, PyramidSizes
from jepa_mpc.errors import choose
from jepa_mpc.world_model.parts.augment import Augmentation, ColourJitter
from jepa_mpc.world_model.parts.crops import RandomCrop
from jepa_mpc.world_model.parts.flow_pyramid import PyramidFlow
from jepa_mpc.world_model.parts.objectives.motion import MotionContentObjective, expander
from jepa_mpc.world_model.parts.objectives.motion_terms import Fading, MotionWeights
from jepa_mpc.world_model.parts.regularisers.two_views import TwoViews


@dataclass(frozen=True, kw_only=True)
class MotionSizes:
    """Sizes and weights of an MC-JEPA.

    Args:
        encoder: Sizes of the pyramid.
        radii: Radius of the correlation at each level, in cells, the finest first.
        hidden: Channels of the layers of the flow estimators.
        skip: Number of fine levels without their own flow.
        expander: Width of VICReg's projection.
        alpha: Weight of the motion branch.
        weights: Weights of the motion terms.
        content: Weights of VICReg: invariance, variance, covariance.
        relax: Share of the smoothness weight at the end of the training.
    """

    encoder: PyramidSizes
    radii: tuple[int, ...]
    hidden: tuple[int, ...]
    skip: int
    expander: int
    alpha: float
    weights: MotionWeights
    content: tuple[float, float, float]
    relax: float = 1.0


PRESETS = {
    "paper": MotionSizes(
        encoder=PyramidSizes(widths=(24, 48, 96, 192, 384, 768), depths=(0, 0, 3, 3, 9, 3), steps=(1, 2, 2, 2, 2, 2)),
        radii=(4, 4, 4, 4, 4, 4),
        hidden=(128, 128, 96, 64, 32),
        skip=2,
        expander=8192,
        alpha=0.1,
        weights=MotionWeights(l1=1.0, l2=1.0, ssim=1.0),
        content=(25.0, 25.0, 1.0),
    ),
    "small": MotionSizes(
        encoder=PyramidSizes(widths=(32, 64, 96, 128), depths=(1, 1, 1, 1), steps=(2, 2, 2, 2), kernel=5, expansion=2),
        radii=(2, 2, 2, 2),
        hidden=(48, 32, 32, 32),
        skip=0,
        expander=256,
        alpha=1.0,
        weights=MotionWeights(regression=0.1, smooth=2.0, coarse=1.0),
        content=(1.0, 1.0, 0.04),
        relax=0.1,
    ),
    "tiny": MotionSizes(
        encoder=PyramidSizes(widths=(8, 16, 16), depths=(0, 1, 1), steps=(2, 2, 2), kernel=3, expansion=2),
        radii=(1, 1, 1),
        hidden=(16, 8),
        skip=0,
        expander=16,
        alpha=1.0,
        weights=MotionWeights(),
        content=(0.2, 0.2, 0.008),
    ),
}


def build(
    *,
    preset: str | MotionSizes = "paper",
    alpha: float | None = None,
    level: int = -1,
    num_cameras: int = 1,
    content_only: float = 0.0,
    relax: float | None = None,
    generator: Generator | None = None,
    **parts: Any,
) -> MotionContentObjective:
    """Assemble the training loss; other systems use its `published` encoder.

    Args:
        preset: A name of `PRESETS`, or custom sizes.
        alpha: Weight of the motion branch, if not the preset's; the paper found about 0.1.
        level: Pyramid level of the encoder's tokens.
        num_cameras: Number of cameras whose channels are stacked in the input of `encode`.
        content_only: Share of the training, at its start, with the content loss alone; a tenth in the paper.
        relax: Share to which the smoothness weight fades, if not the preset's.
        generator: Draws all initial weights; by default the global stream is used.
        **parts: Further parts of `MotionContentObjective`: views, weights, content, spread, prepare.

    Raises:
        UnknownName: If there is no such preset.
        ValueError: If there is no such level.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    relax = sizes.relax if relax is None else relax
    parts.setdefault("prepare", NormalisePixels())
    parts.setdefault("views", Augmentation([RandomCrop(), ColourJitter(mixing=0.2, curve=0.5, permute=0.0)]))
    parts.setdefault("weights", sizes.weights)
    invariance, variance, covariance = sizes.content
    parts.setdefault("content", TwoViews(invariance=invariance, variance=variance, covariance=covariance))
    objective = MotionContentObjective(
        encoder=PyramidEncoder(sizes.encoder, level=level, num_cameras=num_cameras),
        head=PyramidFlow(sizes.encoder.widths, hidden=sizes.hidden, radii=sizes.radii, skip=sizes.skip),
        expander=expander(sizes.encoder.widths[-1], hidden=sizes.expander),
        alpha=sizes.alpha if alpha is None else alpha,
        content_only=content_only,
        relax=Fading(relax),
        **parts,
    )
    if generator is not None:
        draw_weights(objective, generator)
    return objective
