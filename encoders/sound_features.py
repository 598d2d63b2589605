"""Features of a sound from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.encoders.sound import SoundEncoder
from jepa_mpc.sound_files import read_sound
from jepa_mpc.types import State


def encode_sound(file: str | Path, encoder: SoundEncoder) -> State:
    """The tokens of the sound in a file, clip by clip.

    A clip is as long as the encoder's spectrogram. The last clip of a file is padded with zeros in the log domain, as
    in the training of the released encoder (1 s fills a tenth of its 10 s); a rest shorter than one frame is left out.

    Args:
        file: A mono `.wav` file with the encoder's sample rate.
        encoder: A sound encoder: of a trained system (`published`), or a released one
            (`encoders.adapters.sounds.load`).

    Returns:
        `clips N D`, on the encoder's device; `encoders.sound.over_time` gives one vector per row of patches.

    Raises:
        BadObservation: If the file cannot be read, is not mono or has another sample rate.
    """
    wave, _ = read_sound(file, rate=encoder.mel.sizes.rate)
    return encode_wave(torch.from_numpy(wave), encoder)


def encode_wave(wave: Annotated[Tensor, "samples"], encoder: SoundEncoder) -> State:
    """The tokens `clips N D` of a waveform; see `encode_sound`."""
    mode = encoder.training
    try:
        with torch.no_grad():
            sizes = encoder.mel.sizes
            clips = wave.to(next(encoder.parameters()).device).split(sizes.samples)[: sizes.clips(len(wave))]
            return torch.cat([encoder.eval()(clip[None]) for clip in clips])
    finally:
        encoder.train(mode)
