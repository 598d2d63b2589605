"""V-JEPA 2: a video encoder that learns by filling in hidden tubes.

    loss = mean over {short, long} masks of |g(f(x seen), places) - LN(f_ema(x))[places]|

Reference: Assran et al. 2025, arXiv:2506.09985.  The presets "large", "huge", "giant" and "giant_384" have the released
sizes; "small" learns on one processor core from pictures of 64 px, where heads have 32 channels and the target follows
faster, since such runs have thousands of steps and not hundreds of thousands.  Masks come from our own sampler, whose
lists are cut without preference for early times; masks="legacy_tubes" draws those of the published training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

from torch import Generator, nn

from jepa_mpc.encoders.layers.normed import LatentNorm
from jepa_mpc.encoders.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, NormalisePixels
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.released import GIANT, HUGE, LARGE, vjepa2
from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.errors import choose
from jepa_mpc.world_model.parts.masks import TUBES
from jepa_mpc.world_model.parts.masks.tubes import Tubes
from jepa_mpc.world_model.parts.objectives.masked import Change, MaskedObjective, MaskTask, Stream
from jepa_mpc.world_model.parts.predictors.masked import MaskedSizes, RotaryMaskedPredictor
from jepa_mpc.world_model.parts.targets import EMATarget, Momentum, constant_momentum, linear_momentum


@dataclass(frozen=True, kw_only=True)
class PretrainingSizes:
    """Sizes of a masked pretraining on clips.

    Args:
        encoder: Of the encoder.
        predictor: Of the predictor.
        image: Side of the square pictures in pixels.
        frames: Frames of a clip.
        momentum: Of the target, over the progress.
    """

    encoder: VideoSizes
    predictor: MaskedSizes
    image: int
    frames: int
    momentum: Momentum = constant_momentum()

    def with_clips(self, *, image: int | None, frames: int | None, momentum: tuple[float, float] | None = None) -> Self:
        """The same for clips of another size, and with another momentum at start and end; None keeps what is here.

        Raises:
            ValueError: If patches and tubelets do not fill them.
        """
        follow = self.momentum if momentum is None else linear_momentum(*momentum)
        sizes = replace(self, image=image or self.image, frames=frames or self.frames, momentum=follow)
        patch, tubelet = self.encoder.patch, self.encoder.tubelet
        if sizes.image % patch or sizes.frames % tubelet:
            raise ValueError(
                f"clips of {sizes.frames} frames of {sizes.image} px are not filled by patches of {patch} px and "
                f"tubelets of {tubelet} frames"
            )
        return sizes

    @property
    def grid(self) -> tuple[int, int, int]:
        """Times, rows and columns of the tokens of a clip."""
        side = self.image // self.encoder.patch
        return self.frames // self.encoder.tubelet, side, side


def _released(encoder: VideoSizes, *, image: int = 256) -> PretrainingSizes:
    predictor = MaskedSizes(inputs=encoder.width, outputs=encoder.width)
    return PretrainingSizes(encoder=encoder, predictor=predictor, image=image, frames=16)


PRESETS = {
    "large": _released(LARGE),
    "huge": _released(HUGE),
    "giant": _released(GIANT),
    "giant_384": _released(GIANT, image=384),
    "small": PretrainingSizes(
        encoder=VideoSizes(width=96, depth=4, heads=3, mlp_dim=384, patch=8),
        predictor=MaskedSizes(inputs=96, outputs=96, width=64, depth=3, heads=2, mlp_dim=256, mask_tokens=2),
        image=64,
        frames=8,
        momentum=linear_momentum(0.99, 1.0),
    ),
    "tiny": PretrainingSizes(
        encoder=VideoSizes(width=32, depth=2, heads=2, mlp_dim=64, patch=7),
        predictor=MaskedSizes(inputs=32, outputs=32, width=24, depth=2, heads=2, mlp_dim=48, mask_tokens=2),
        image=28,
        frames=4,
        momentum=linear_momentum(0.99, 1.0),
    ),
}


def build(
    *,
    preset: str | PretrainingSizes = "large",
    image: int | None = None,
    frames: int | None = None,
    momentum: tuple[float, float] | None = None,
    masks: str = "tubes",
    augment: Change | None = None,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    generator: Generator | None = None,
    **parts: Any,
) -> MaskedObjective:
    """Assemble the training loss; its `published` encoder is what other systems build on.

    Args:
        preset: A name of `PRESETS`, or sizes of your own.
        image: Side of the pictures in pixels, if not the preset's.
        frames: Frames of a clip, if not the preset's.
        momentum: Of the target at the start and at the end of the training, if not the preset's.
        masks: Which sampler, by its name in `TUBES`.
        augment: Changes raw frames `B T C h w` in training, or None.
        mean: Mean of the pixels' colours on the scale 0 to 1.
        std: Their spread.
        generator: Draws all initial weights; by default the global stream does.
        **parts: Further parts of `MaskedObjective`: distance, regularisers.

    Raises:
        UnknownName: If there is no such preset or sampler.
        ValueError: If patches and tubelets do not fill the clip.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    sizes = sizes.with_clips(image=image, frames=frames, momentum=momentum)
    encoder = vjepa2(sizes.encoder)
    predictor = RotaryMaskedPredictor(sizes.predictor, grid=sizes.grid[1:], pairing="tiled")
    pixels = NormalisePixels(mean=mean, std=std)
    tasks = clip_tasks(sizes.grid, choose(TUBES, masks, "mask sampler"))
    clips = Stream("frames", tasks, prepare=pixels, augment=augment, num_tokens=math.prod(sizes.grid))
    return pretraining(
        encoder, predictor, streams=[clips], momentum=sizes.momentum, still=pixels, generator=generator, **parts
    )


def pretraining(
    encoder: nn.Module,
    predictor: nn.Module,
    *,
    streams: list[Stream],
    momentum: Momentum,
    levels: int = 1,
    generator: Generator | None = None,
    **parts: Any,
) -> MaskedObjective:
    """A masked loss whose target follows the encoder and is layer-normed without weights.

    Args:
        encoder: The encoder.
        predictor: Fills in what is hidden.
        streams: What is shown, and how it is masked.
        momentum: Of the target, over the progress.
        levels: Depths whose tokens stand side by side in the target; each is normed by itself.
        generator: Draws all initial weights; None leaves them as they are.
        **parts: Further parts of `MaskedObjective`.
    """
    if generator is not None:
        draw_weights(encoder, generator)
        draw_weights(predictor, generator)
    target = EMATarget(encoder, momentum=momentum, finish=LatentNorm(groups=levels))  # a copy: after the drawing
    return MaskedObjective(encoder=encoder, predictor=predictor, streams=streams, target=target, **parts)


def clip_tasks(grid: tuple[int, int, int], tubes: Callable[..., Tubes], **hints: Any) -> list[MaskTask]:
    """The two ways of hiding of the published trainings: many small tubes, and two large ones."""
    return [
        MaskTask(name="short", sampler=tubes(grid=grid, num_blocks=8, area=(0.15, 0.15)), hints=hints),
        MaskTask(name="long", sampler=tubes(grid=grid, num_blocks=2, area=(0.7, 0.7)), hints=hints),
    ]
