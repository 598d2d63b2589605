"""V-JEPA 2: a video encoder trained to predict masked tubes.

    loss = mean over {short, long} masks of |g(f(x seen), places) - LN(f_ema(x))[places]|

Reference: Assran et al. 2025, arXiv:2506.09985.  The presets "large", "huge", "giant" and "giant_384" have the released
sizes; "small" trains on one CPU core on images of 64 px, with heads of 32 channels and a faster target, since such
trainings have thousands of steps and not hundreds of thousands.  Masks come from our own sampler, which truncates lists
without preference for early times; masks="legacy_tubes" reproduces the published training.
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
        encoder: Sizes of the encoder.
        predictor: Sizes of the predictor.
        image: Side of the square images in pixels.
        frames: Frames per clip.
        momentum: Momentum of the target over the training progress.
    """

    encoder: VideoSizes
    predictor: MaskedSizes
    image: int
    frames: int
    momentum: Momentum = constant_momentum()

    def with_clips(self, *, image: int | None, frames: int | None, momentum: tuple[float, float] | None = None) -> Self:
        """The same for clips of another size, and with another momentum at start and end; None keeps the current value.

        Raises:
            ValueError: If the clip is not divisible into patches and tubelets.
        """
        follow = self.momentum if momentum is None else linear_momentum(*momentum)
        sizes = replace(self, image=image or self.image, frames=frames or self.frames, momentum=follow)
        patch, tubelet = self.encoder.patch, self.encoder.tubelet
        if sizes.image % patch or sizes.frames % tubelet:
            raise ValueError(
                f"clips of {sizes.frames} frames of {sizes.image} px are not divisible into patches of {patch} px and "
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
    """Assemble the training loss; other systems use its `published` encoder.

    Args:
        preset: A name of `PRESETS`, or custom sizes.
        image: Side of the images in pixels, if not the preset's.
        frames: Frames per clip, if not the preset's.
        momentum: Momentum of the target at the start and at the end of the training, if not the preset's.
        masks: Name of the sampler in `TUBES`.
        augment: Augments raw frames `B T C h w` in training, or None.
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
    encoder = vjepa2(sizes.encoder)
    predictor = RotaryMaskedPredictor(sizes.predictor, grid=sizes.grid[1:], pairing="tiled")
    pixels = NormalisePixels(mean=mean, std=std)
    tasks = clip_tasks(sizes.grid, choose(TUBES, masks, "mask sampler"))
    clips = Stream("frames", tasks, prepare=pixels, augment=augment, num_tokens=math.prod(sizes.grid), side=sizes.image)
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
    finish: nn.Module | None = None,
    generator: Generator | None = None,
    **parts: Any,
) -> MaskedObjective:
    """A masked loss with an EMA target, layer-normed without weights.

    Args:
        encoder: The encoder.
        predictor: Predicts the masked tokens.
        streams: Inputs and their masks.
        momentum: Momentum of the target over the training progress.
        levels: Depths whose tokens are concatenated in the target; each is normed separately.
        finish: Replaces the normalisation of the target's tokens.
        generator: Draws all initial weights; None keeps them.
        **parts: Further parts of `MaskedObjective`.
    """
    if generator is not None:
        draw_weights(encoder, generator)
        draw_weights(predictor, generator)
    finish = finish or LatentNorm(groups=levels)
    target = EMATarget(encoder, momentum=momentum, finish=finish)  # copied after initialisation
    return MaskedObjective(encoder=encoder, predictor=predictor, streams=streams, target=target, **parts)


def clip_tasks(grid: tuple[int, int, int], tubes: Callable[..., Tubes], *, own_tokens: bool = False) -> list[MaskTask]:
    """The two mask tasks of the published trainings: many small tubes, and two large ones.

    Args:
        grid: Times, rows and columns of the tokens of a clip.
        tubes: Builds a sampler.
        own_tokens: Whether each task has its own mask token.
    """
    short, long = ({"mask_token": index} if own_tokens else {} for index in range(2))
    return [
        MaskTask(name="short", sampler=tubes(grid=grid, num_blocks=8, area=(0.15, 0.15)), hints=short),
        MaskTask(name="long", sampler=tubes(grid=grid, num_blocks=2, area=(0.7, 0.7)), hints=long),
    ]
