"""V-JEPA 2.1: V-JEPA 2 with dense features, trained on clips and images jointly.

    loss = |g(seen) - y|[hidden] + lambda |g'(seen) - y|[seen] / sqrt(d)        y: four depths of f_ema, each LN'ed
    d: distance of a visible token to the nearest masked one;  lambda rises from 0 to 0.5 early in the training

Reference: V-JEPA 2.1, arXiv:2603.14482.  Presets "giant" and "gigantic" have the released sizes; "small" trains on one
CPU core.  Images are frames of the same batch unless it has its own (`images`, `B 1 C h w`); the published training
draws both from separate sets.  The released base and large encoders were distilled from a larger one and not trained
this way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import Generator

from jepa_mpc.encoders.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, NormalisePixels
from jepa_mpc.encoders.released import GIANT, GIGANTIC, NUM_LEVELS, PRETRAINING_PIXELS, vjepa2_1
from jepa_mpc.encoders.video import AllLevels, VideoSizes
from jepa_mpc.errors import choose
from jepa_mpc.world_model.parts.masks import TUBES
from jepa_mpc.world_model.parts.objectives.masked import Change, MaskedObjective, MaskTask, Stream, first_frames
from jepa_mpc.world_model.parts.objectives.seen import InverseRootDistance, Nearness, Ramp, SeenLoss
from jepa_mpc.world_model.parts.predictors.masked import DenseMaskedPredictor, MaskedSizes
from jepa_mpc.world_model.recipes.vjepa2 import PRESETS as SMALLER
from jepa_mpc.world_model.recipes.vjepa2 import PretrainingSizes, clip_tasks, pretraining


@dataclass(frozen=True, kw_only=True)
class DenseSizes(PretrainingSizes):
    """Sizes of a dense masked pretraining.

    Args:
        ramp: Weight of the loss on visible tokens over the progress.
    """

    ramp: Ramp = Ramp(start=15 / 135, stop=30 / 135, height=0.5)  # noqa: RUF009  frozen


def _released(encoder: VideoSizes) -> DenseSizes:
    joined = NUM_LEVELS * encoder.width
    predictor = MaskedSizes(inputs=joined, outputs=joined, depth=24, mask_tokens=8, hidden=encoder.width)
    return DenseSizes(encoder=encoder, predictor=predictor, image=256, frames=16)


def _reduced(name: str) -> DenseSizes:
    """The sizes of V-JEPA 2 of that name, with four blocks and levels."""
    base = SMALLER[name]
    encoder = replace(base.encoder, depth=NUM_LEVELS)
    joined = NUM_LEVELS * encoder.width
    predictor = replace(base.predictor, inputs=joined, outputs=joined, hidden=encoder.width)
    return DenseSizes(
        encoder=encoder, predictor=predictor, image=base.image, frames=base.frames, momentum=base.momentum
    )


PRESETS = {
    "giant": _released(GIANT),
    "gigantic": _released(GIGANTIC),
    "small": _reduced("small"),
    "tiny": replace(_reduced("tiny"), ramp=Ramp(start=0, stop=0, height=0.5)),
}


def build(
    *,
    preset: str | DenseSizes = "giant",
    image: int | None = None,
    frames: int | None = None,
    momentum: tuple[float, float] | None = None,
    masks: str = "tubes",
    augment: Change | None = None,
    picture_weight: float = 1.0,
    nearness: Nearness | None = None,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    generator: Generator | None = None,
    **parts: Any,
) -> MaskedObjective:
    """Assemble the training loss; other systems use its `published` encoder.

    Args:
        preset: A name of `PRESETS`, or custom sizes.
        image: Side of the images in pixels, if not the preset's.
        frames: Frames per clip, if not the preset's.
        momentum: Momentum of the target at the start and at the end of the training, if not the preset's.
        masks: Name of the sampler in `TUBES`.
        augment: Augments raw frames `B T C h w` in training, or None.
        picture_weight: Weight of the image loss relative to the clip loss.
        nearness: Weight of each visible token; by default the inverse root of its distance.
        mean: Mean of the pixel colours on the scale 0 to 1.
        std: Their standard deviation.
        generator: Draws all initial weights; by default the global stream is used.
        **parts: Further parts of `MaskedObjective`: distance, regularisers.

    Raises:
        UnknownName: If there is no such preset or sampler.
        ValueError: If the clip is not divisible into patches and tubelets.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    sizes = sizes.with_clips(image=image, frames=frames, momentum=momentum)
    encoder = AllLevels(vjepa2_1(sizes.encoder))
    span = PRETRAINING_PIXELS // sizes.encoder.patch
    predictor = DenseMaskedPredictor(sizes.predictor, grid=sizes.grid[1:], span=span)
    tubes, pixels = choose(TUBES, masks, "mask sampler"), NormalisePixels(mean=mean, std=std)
    taken: dict[str, Any] = {"prepare": pixels, "augment": augment, "side": sizes.image}
    clips = Stream("frames", clip_tasks(sizes.grid, tubes), **taken, num_tokens=math.prod(sizes.grid))
    one = (1, *sizes.grid[1:])
    blocks = tubes(grid=one, num_blocks=10, area=(0.15, 0.15))
    pictures = Stream(
        "images",
        [MaskTask(name="blocks", sampler=blocks, hints={"modality": "image"})],
        **taken,
        weight=picture_weight,
        otherwise=first_frames,
        num_tokens=math.prod(one),
    )
    return pretraining(
        encoder,
        predictor,
        streams=[clips, pictures],
        momentum=sizes.momentum,
        levels=NUM_LEVELS,
        generator=generator,
        seen_loss=SeenLoss(nearness=nearness or InverseRootDistance(sizes.grid[1:]), ramp=sizes.ramp),
        still=pixels,
        **parts,
    )
