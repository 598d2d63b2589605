"""Audio-JEPA: a sound encoder trained to predict masked patches of a log-mel spectrogram.

    loss = mean 2 - 2 cos(g(f(x seen), places), standardised f_ema(x)[places])

Reference: Tuncay et al. 2025, arXiv:2507.02915.  "paper" has the input of the released weights (256 frames x 128 bands
of 10 s at 32 kHz), "paper_512" that of the later code (512 x 96); "small" and "tiny" are ours, for contact sound at 16
kHz: they keep the loudness and scale log-mel values evenly.  masks="blocks" masks three blocks instead of random
patches, masks="legacy_blocks" draws them as the public code does.  The predictor is initialised as in V-JEPA 2, where
the released code uses the framework's default; the momentum reaches its final value at the end of the training, as in
the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Generator, nn

from jepa_mpc.encoders.layers.normed import Centred, UnbiasedNorm
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.mel import LogMel, MelSizes
from jepa_mpc.encoders.placed import Grid, column_first
from jepa_mpc.encoders.released_sounds import BASE, LATER, RELEASED
from jepa_mpc.encoders.sound import mel_grid, sound_trunk
from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.errors import choose
from jepa_mpc.interfaces import MaskSampler
from jepa_mpc.world_model.parts.distances import CosineDistance, Distance
from jepa_mpc.world_model.parts.masks import BLOCKS
from jepa_mpc.world_model.parts.masks.random_tokens import RandomTokens
from jepa_mpc.world_model.parts.objectives.masked import Change, MaskTask
from jepa_mpc.world_model.parts.predictors.masked import MaskedPredictor, MaskedSizes, TablePlaces
from jepa_mpc.world_model.parts.sound_objective import SoundObjective, SoundStream
from jepa_mpc.world_model.parts.targets import EMATarget, cosine_momentum


@dataclass(frozen=True, kw_only=True)
class SoundSizes:
    """Sizes of a masked pretraining on sounds.

    Args:
        encoder: Of the encoder.
        predictor: Of the predictor.
        mel: Layout of the spectrograms.
        level: Normalises the level of waveforms, or None for the published normalisation.
        momentum: Momentum of the target at the start and at the end of the training.
    """

    encoder: VideoSizes
    predictor: MaskedSizes
    mel: MelSizes
    level: nn.Module | None = None
    momentum: tuple[float, float] = (0.996, 1.0)


def _published(mel: MelSizes) -> SoundSizes:
    predictor = MaskedSizes(inputs=768, outputs=768, depth=6, mask_tokens=1, eps=BASE.eps)
    return SoundSizes(encoder=BASE, predictor=predictor, mel=mel)


PRESETS = {
    "paper": _published(RELEASED),
    "paper_512": _published(LATER),
    "small": SoundSizes(
        encoder=VideoSizes(
            width=96, depth=4, heads=3, mlp_dim=384, patch=8, patch_width=16, tubelet=1, channels=1, eps=1e-5
        ),
        predictor=MaskedSizes(inputs=96, outputs=96, width=64, depth=3, heads=2, mlp_dim=256, mask_tokens=1, eps=1e-5),
        mel=MelSizes(rate=16000, frames=96, bands=64, window=400, hop=160, mean=-8.0, std=4.0),
        level=nn.Identity(),
        momentum=(0.99, 1.0),
    ),
    "tiny": SoundSizes(
        encoder=VideoSizes(width=32, depth=2, heads=2, mlp_dim=64, patch=4, patch_width=8, tubelet=1, channels=1),
        predictor=MaskedSizes(inputs=32, outputs=32, width=24, depth=2, heads=2, mlp_dim=48, mask_tokens=1),
        mel=MelSizes(rate=2000, frames=24, bands=16, window=64, hop=32, mean=-8.0, std=4.0),
        level=nn.Identity(),
        momentum=(0.99, 1.0),
    ),
}
TARGETS: dict[str, Callable[[], nn.Module]] = {
    "standardised": UnbiasedNorm,
    "centred": Centred,
    "plain": nn.Identity,
}
"""Name -> normalisation of the target's tokens."""


def _blocks(name: str, grid: Grid) -> MaskSampler:
    return BLOCKS[name](grid=grid[1:], num_targets=3, context_area=(0.8, 1.0), aspect=(0.5, 2.0), least_seen=1)


MASKS: dict[str, Callable[[Grid], MaskSampler]] = {
    "random": lambda grid: RandomTokens(num_tokens=math.prod(grid)),
    **{name: partial(_blocks, name) for name in BLOCKS},
}
"""Name -> builder of a mask sampler for a grid of patches."""


def build(
    *,
    preset: str | SoundSizes = "paper",
    rate: int | None = None,
    masks: str = "random",
    target: str = "standardised",
    momentum: tuple[float, float] | None = None,
    distance: Distance | None = None,
    augment: Change | None = None,
    generator: Generator | None = None,
    **parts: Any,
) -> SoundObjective:
    """Assemble the training loss; other systems use its `published` encoder.

    Args:
        preset: A name of `PRESETS`, or custom sizes.
        rate: Sample rate of the sounds, if not the preset's; frames keep their duration.
        masks: Name of the sampler in `MASKS`.
        target: Name of the target normalisation in `TARGETS`.
        momentum: Momentum of the target at the start and at the end of the training, if not the preset's.
        distance: Between predicted and true tokens; by default 2 - 2 cos.
        augment: Augments waveforms `B G` in training, or None.
        generator: Draws all initial weights; by default the global stream is used.
        **parts: Further parts of `MaskedObjective`: regularisers.

    Raises:
        UnknownName: If there is no such preset, sampler or target.
        ValueError: If the spectrogram is not divisible into patches, or the rate is out of range.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    mel = sizes.mel if rate is None else sizes.mel.at(rate)
    grid = mel_grid(mel, sizes.encoder)
    encoder = sound_trunk(sizes.encoder, mel)
    predictor = MaskedPredictor(sizes.predictor, TablePlaces(column_first(grid, sizes.predictor.width)))
    if generator is not None:
        draw_weights(encoder, generator)
        draw_weights(predictor, generator)
    hidden = MaskTask(name="hidden", sampler=choose(MASKS, masks, "mask sampler")(grid))
    follow = cosine_momentum(*(momentum or sizes.momentum))
    finish = choose(TARGETS, target, "target")()
    return SoundObjective(
        encoder=encoder,
        predictor=predictor,
        streams=[SoundStream([hidden], mel=LogMel(mel, level=sizes.level), augment=augment)],
        target=EMATarget(encoder, momentum=follow, finish=finish),  # copied after initialisation
        distance=distance or CosineDistance(),
        **parts,
    )
