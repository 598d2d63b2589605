"""Factored masks: a video encoder, one predictor for masked time steps, another for masked positions.

    loss = 1/2 |motion(f(x seen), places) - LN f_ema(x)|^2 + 1/2 |content(f(x seen), places) - LN f_ema(x)|^2
               whole frames hidden                               the same cells hidden in every frame

This is the factored-mask variant of this project's design document, which calls it MC-JEPA.  It is *not* the method of
the paper of that name (Bardes et al. 2023, arXiv:2307.12698; see `mc_jepa`), and there is no published evidence for it:
it is a V-JEPA (Bardes et al. 2024, arXiv:2404.08471) with other masks, two predictors and a squared distance.
"""

from __future__ import annotations

from typing import Any

from torch import Generator

from jepa_mpc.encoders.layers.pixels import NormalisePixels
from jepa_mpc.encoders.released import vjepa2
from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.errors import choose
from jepa_mpc.interfaces import MaskSampler
from jepa_mpc.world_model.parts.distances import SquaredError
from jepa_mpc.world_model.parts.masks.factored import MomentMask, PlaceMask
from jepa_mpc.world_model.parts.objectives.masked import Change, MaskedObjective, MaskTask, Stream
from jepa_mpc.world_model.parts.predictors.chosen import ChosenPredictor
from jepa_mpc.world_model.parts.predictors.masked import MaskedSizes, RotaryMaskedPredictor
from jepa_mpc.world_model.parts.targets import linear_momentum
from jepa_mpc.world_model.recipes.vjepa2 import PretrainingSizes, pretraining

MOTION, CONTENT = "motion", "content"

PRESETS = {
    "base": PretrainingSizes(
        encoder=VideoSizes(width=768, depth=12, heads=12, mlp_dim=3072, tubelet=1),
        predictor=MaskedSizes(inputs=768, outputs=768, width=384, depth=6, heads=12, mlp_dim=1536, mask_tokens=1),
        image=224,
        frames=8,
        momentum=linear_momentum(0.998, 1.0),
    ),
    "small": PretrainingSizes(
        encoder=VideoSizes(width=96, depth=4, heads=3, mlp_dim=384, patch=8, tubelet=1),
        predictor=MaskedSizes(inputs=96, outputs=96, width=64, depth=3, heads=2, mlp_dim=256, mask_tokens=1),
        image=64,
        frames=4,
        momentum=linear_momentum(0.99, 1.0),
    ),
    "tiny": PretrainingSizes(
        encoder=VideoSizes(width=32, depth=2, heads=2, mlp_dim=64, patch=7, tubelet=1),
        predictor=MaskedSizes(inputs=32, outputs=32, width=24, depth=2, heads=2, mlp_dim=48, mask_tokens=1),
        image=28,
        frames=4,
        momentum=linear_momentum(0.99, 1.0),
    ),
}
"""Tubelets of one frame, so that a masked time step is exactly one frame."""


def build(
    *,
    preset: str | PretrainingSizes = "base",
    image: int | None = None,
    frames: int | None = None,
    moments: tuple[float, float] = (0.25, 0.5),
    places: tuple[float, float] = (0.4, 0.7),
    augment: Change | None = None,
    generator: Generator | None = None,
    **parts: Any,
) -> MaskedObjective:
    """Assemble the training loss; other systems use its `published` encoder.

    Args:
        preset: A name of `PRESETS`, or custom sizes.
        image: Side of the images in pixels, if not the preset's.
        frames: Frames per clip, if not the preset's.
        moments: Smallest and largest share of masked frames in the motion task.
        places: Smallest and largest share of masked cells in the content task.
        augment: Augments raw frames `B T C h w` in training, or None.
        generator: Draws all initial weights; by default the global stream is used.
        **parts: Further parts of `MaskedObjective`: distance, regularisers.

    Raises:
        UnknownName: If there is no such preset.
        ValueError: If the image is not divisible into patches, or a mask would leave nothing.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    sizes = sizes.with_clips(image=image, frames=frames)
    encoder = vjepa2(sizes.encoder)
    predictor = ChosenPredictor(
        {name: RotaryMaskedPredictor(sizes.predictor, grid=sizes.grid[1:]) for name in (MOTION, CONTENT)}
    )
    samplers: dict[str, MaskSampler] = {
        MOTION: MomentMask(grid=sizes.grid, share=(moments[0], moments[1])),
        CONTENT: PlaceMask(grid=sizes.grid, share=(places[0], places[1])),
    }
    tasks = [MaskTask(name=name, sampler=sampler, hints={"which": name}) for name, sampler in samplers.items()]
    count = sizes.grid[0] * sizes.grid[1] * sizes.grid[2]
    pixels = NormalisePixels()
    parts.setdefault("distance", SquaredError())
    clips = Stream("frames", tasks, prepare=pixels, augment=augment, num_tokens=count, side=sizes.image)
    return pretraining(
        encoder, predictor, streams=[clips], momentum=sizes.momentum, still=pixels, generator=generator, **parts
    )
