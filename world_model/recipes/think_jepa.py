"""ThinkJEPA: a dense predictor of future tokens, guided by a slow model (the thinker) that saw the past.

    loss = |p - sg(z_future)|^2 + w |path(p) - places|^2              mean squares; positions in metres

Reference: Zhang et al. 2026, arXiv:2603.22281.  Preset "paper" has the published sizes (V-JEPA 2 large at 256 px, 32
observed and 32 predicted frames, a thinker of 2048 channels) and needs a thinker's cached features in its batches.
"lab" and "tiny" are our own: the thinker is a stand-in, our frozen encoder at several depths over a sparse view of the
same log.  Frames are encoded one by one; the path is that of the robot's hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from torch import Generator, nn

from jepa_mpc.encoders.frozen import FrozenFrames
from jepa_mpc.encoders.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, NormalisePixels
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.released import LARGE
from jepa_mpc.encoders.video import VideoSizes, VideoTransformer
from jepa_mpc.errors import choose
from jepa_mpc.world_model.parts.objectives.think import HAND, ThinkObjective
from jepa_mpc.world_model.parts.objectives.think_path import PathHead
from jepa_mpc.world_model.parts.objectives.think_standin import DepthTokens, Thinker
from jepa_mpc.world_model.parts.objectives.think_views import ClipViews, cut
from jepa_mpc.world_model.parts.predictors.guidance import GUIDANCE, GuidanceSizes
from jepa_mpc.world_model.parts.predictors.guided import GuidedPredictor
from jepa_mpc.world_model.parts.predictors.masked import MaskedSizes, RotaryMaskedPredictor


@dataclass(frozen=True, kw_only=True)
class ThinkSizes:
    """Sizes of a ThinkJEPA.

    Args:
        encoder: Sizes of the frozen encoder.
        predictor: Sizes of the predictor.
        guidance: Sizes of the guidance.
        views: Assignment of a window's frames to the views.
        side: Side of the square grid of a frame's tokens.
        thinker: The stand-in, or None if batches bring a thinker's features.
        path_hidden: Width inside the path head.
        path_heads: Its attention heads.
    """

    encoder: VideoSizes
    predictor: MaskedSizes
    guidance: GuidanceSizes
    views: ClipViews
    side: int
    thinker: Thinker | None = None
    path_hidden: int = 1024
    path_heads: int = 8

    def for_tokens(self, width: int) -> Self:
        """The same for tokens of another width; the stand-in's features have that width, too."""
        return replace(
            self,
            predictor=replace(self.predictor, inputs=width, outputs=width),
            guidance=replace(self.guidance, inputs=width),
        )


PRESETS = {
    "paper": ThinkSizes(
        encoder=LARGE,
        predictor=MaskedSizes(inputs=1024, outputs=1024, width=384, depth=12, heads=6, mlp_dim=1536, mask_tokens=1),
        guidance=GuidanceSizes(inputs=2048),
        views=ClipViews(dense=tuple(range(32)), sparse=tuple(range(0, 32, 4)), future=tuple(range(32, 64))),
        side=16,
    ),
    "lab": ThinkSizes(
        encoder=VideoSizes(width=96, depth=4, heads=3, mlp_dim=384, patch=8),
        predictor=MaskedSizes(inputs=96, outputs=96, width=64, depth=4, heads=2, mlp_dim=256, mask_tokens=1),
        guidance=GuidanceSizes(inputs=96, hidden=128, heads=2),
        views=cut(observed=6, future=2, dense=2, sparse=3),
        side=8,
        thinker=DepthTokens(at=(0, 1, 2, 3)),
        path_hidden=128,
        path_heads=4,
    ),
    "tiny": ThinkSizes(
        encoder=VideoSizes(width=32, depth=2, heads=2, mlp_dim=64, patch=7),
        predictor=MaskedSizes(inputs=32, outputs=32, width=24, depth=2, heads=2, mlp_dim=48, mask_tokens=1),
        guidance=GuidanceSizes(inputs=32, hidden=24, heads=2),
        views=cut(observed=3, future=1, dense=1, sparse=2),
        side=4,
        thinker=DepthTokens(at=(0, 1)),
        path_hidden=32,
        path_heads=2,
    ),
}


def build(
    *,
    preset: str | ThinkSizes = "paper",
    guidance: str | None = "film",
    thinker: Thinker | None = None,
    views: ClipViews | None = None,
    encoder: nn.Module | None = None,
    state_dim: int | None = None,
    grid: Sequence[int] | None = None,
    position: Sequence[int] = HAND,
    generator: Generator | None = None,
    **parts: Any,
) -> ThinkObjective:
    """Assemble the training loss.

    Args:
        preset: A name of `PRESETS`, or custom sizes.
        guidance: Kind of guidance, a name of `GUIDANCE`; None builds the unguided predictor, the control.
        thinker: Makes features if the batch has none, if not the preset's.
        views: Assignment of a window's frames to the views, if not the preset's.
        encoder: The frozen encoder; by default one of the preset's sizes.
        state_dim: Width of the encoder's tokens, if not the preset's.
        grid: Their rows and columns, if not the preset's.
        position: Indices of the path in the proprioception (m).
        generator: Draws all initial weights, including the encoder's; by default the global stream is used.
        **parts: Further parts of `ThinkObjective`: path_weight, preprocess, augment.

    Raises:
        UnknownName: If there is no such preset or guidance.
        ValueError: If the encoder gives tokens of another width than the predictor expects.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    if state_dim is not None:
        sizes = sizes.for_tokens(state_dim)
    rows, columns = grid or (sizes.side, sizes.side)
    frozen = FrozenFrames(VideoTransformer(sizes.encoder, pairing="tiled") if encoder is None else encoder)
    if frozen.width != sizes.predictor.inputs:
        raise ValueError(
            f"the encoder gives tokens of width {frozen.width}, the predictor expects {sizes.predictor.inputs}"
        )
    plain = RotaryMaskedPredictor(sizes.predictor, grid=(rows, columns), pairing="interleaved")
    parts.setdefault("preprocess", NormalisePixels(mean=IMAGENET_MEAN, std=IMAGENET_STD))
    objective = ThinkObjective(
        encoder=frozen,
        predictor=plain if guidance is None else _guided(plain, sizes, guidance),
        views=views or sizes.views,
        thinker=None if guidance is None else thinker or sizes.thinker,
        head=PathHead(
            rows * columns, sizes.predictor.outputs, outputs=len(position), hidden=sizes.path_hidden,
            heads=sizes.path_heads,
        ),
        position=position,
        **parts,
    )  # fmt: skip
    if generator is not None:
        draw_weights(objective, generator)
    return objective


def _guided(plain: RotaryMaskedPredictor, sizes: ThinkSizes, guidance: str) -> GuidedPredictor:
    return GuidedPredictor(plain, sizes=sizes.guidance, guidance=choose(GUIDANCE, guidance, "guidance"))
