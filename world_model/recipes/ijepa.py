"""I-JEPA: an image encoder trained to predict masked blocks of an image.

    loss = mean over 4 target blocks of smooth L1(g(f(x seen), places of the block), LN(f_ema(x))[block])

Reference: Assran et al. 2023, arXiv:2301.08243.  The presets "base" to "giant" have the published sizes; "small" trains
on one CPU core on images of 64 px.  The distance is that of the released code; the paper's text says L2, which the
preset "small_l2" uses.  Masks come from our own sampler, which reaches the last row and column, draws area and aspect
independently and truncates lists at random; masks="legacy_blocks" reproduces the published training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Generator

from jepa_mpc.encoders.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, NormalisePixels
from jepa_mpc.encoders.placed import PlacedForm, column_first
from jepa_mpc.encoders.released_first import BASE, GIANT, HUGE, LARGE
from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.errors import choose
from jepa_mpc.world_model.parts.distances import Distance, SmoothAbsoluteError, SquaredError
from jepa_mpc.world_model.parts.masks import BLOCKS
from jepa_mpc.world_model.parts.objectives.masked import Change, MaskedObjective, MaskTask, Stream, each_frame
from jepa_mpc.world_model.parts.predictors.masked import MaskedPredictor, MaskedSizes, TablePlaces
from jepa_mpc.world_model.parts.targets import linear_momentum
from jepa_mpc.world_model.recipes.vjepa2 import PretrainingSizes, pretraining


@dataclass(frozen=True, kw_only=True)
class PictureSizes(PretrainingSizes):
    """Sizes of a masked pretraining on single images.

    Args:
        least_seen: Minimum number of visible tokens per sample.
        distance: Between predicted and true tokens.
    """

    least_seen: int = 10
    distance: Distance = SmoothAbsoluteError()  # noqa: RUF009  has no state


def _published(encoder: VideoSizes, *, depth: int, image: int = 224) -> PictureSizes:
    predictor = MaskedSizes(
        inputs=encoder.width, outputs=encoder.width, depth=depth, heads=encoder.heads, mask_tokens=1
    )
    return PictureSizes(encoder=encoder, predictor=predictor, image=image, frames=1, momentum=linear_momentum())


SMALL = PictureSizes(
    encoder=VideoSizes(width=96, depth=4, heads=3, mlp_dim=384, patch=8, tubelet=1),
    predictor=MaskedSizes(inputs=96, outputs=96, width=64, depth=3, heads=2, mlp_dim=256, mask_tokens=1),
    image=64,
    frames=1,
    momentum=linear_momentum(0.99, 1.0),
)
PRESETS = {
    "base": _published(BASE, depth=6),
    "large": _published(LARGE, depth=12),
    "huge": _published(replace(HUGE, patch=14), depth=12),
    "huge_448": _published(HUGE, depth=12, image=448),
    "giant": _published(GIANT, depth=16),
    "small": SMALL,
    "small_l2": replace(SMALL, distance=SquaredError()),
    "tiny": PictureSizes(
        encoder=VideoSizes(width=32, depth=2, heads=2, mlp_dim=64, patch=7, tubelet=1),
        predictor=MaskedSizes(inputs=32, outputs=32, width=24, depth=2, heads=2, mlp_dim=48, mask_tokens=1),
        image=28,
        frames=1,
        momentum=linear_momentum(0.99, 1.0),
        least_seen=2,
    ),
}


def build(
    *,
    preset: str | PictureSizes = "huge",
    image: int | None = None,
    momentum: tuple[float, float] | None = None,
    masks: str = "blocks",
    augment: Change | None = None,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    generator: Generator | None = None,
    **parts: Any,
) -> MaskedObjective:
    """Assemble the training loss; other systems use its `published` encoder.

    Args:
        preset: A name of `PRESETS`, or custom sizes.
        image: Side of the images in pixels, if not the preset's.
        momentum: Momentum of the target at the start and at the end of the training, if not the preset's.
        masks: Name of the sampler in `BLOCKS`.
        augment: Augments raw frames `B 1 C h w` in training, or None.
        mean: Mean of the pixel colours on the scale 0 to 1.
        std: Their standard deviation.
        generator: Draws all initial weights; by default the global stream is used.
        **parts: Further parts of `MaskedObjective`: distance, regularisers.

    Raises:
        UnknownName: If there is no such preset or sampler.
        ValueError: If the image is not divisible into patches.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    sizes = sizes.with_clips(image=image, frames=1, momentum=momentum)
    encoder = PlacedForm(image=sizes.image)(sizes.encoder)
    predictor = MaskedPredictor(sizes.predictor, TablePlaces(column_first(sizes.grid, sizes.predictor.width)))
    sampler = choose(BLOCKS, masks, "mask sampler")(grid=sizes.grid[1:], least_seen=sizes.least_seen)
    pixels = NormalisePixels(mean=mean, std=std)
    pictures = Stream(
        "images", [MaskTask(name="blocks", sampler=sampler)], prepare=pixels, augment=augment, otherwise=each_frame,
        num_tokens=sizes.grid[1] * sizes.grid[2], side=sizes.image,
    )  # fmt: skip
    parts.setdefault("distance", sizes.distance)
    return pretraining(
        encoder, predictor, streams=[pictures], momentum=sizes.momentum, still=pixels, generator=generator, **parts
    )
