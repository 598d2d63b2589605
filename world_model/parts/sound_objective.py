"""The masked loss on sounds: tokens are patches of a log-mel spectrogram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.mel import LogMel, Waves
from jepa_mpc.encoders.placed import PlacedTransformer
from jepa_mpc.encoders.sound import SoundEncoder
from jepa_mpc.errors import BadObservation
from jepa_mpc.interfaces import Batch
from jepa_mpc.types import Latents
from jepa_mpc.world_model.parts.objectives.masked import Change, MaskedObjective, MaskTask, Stream

SOUND = "sound"
Sound = Annotated[Tensor, "B T G"]
"""The samples recorded before each of T observations, since the previous one."""


class SoundStream(Stream):
    """Windows of sound `B T G`, each one waveform of T G samples.

    Args:
        tasks: Every way of hiding.
        mel: Makes spectrograms.
        augment: Augments waveforms `B G` in training mode, or None.
    """

    def __init__(self, tasks: Sequence[MaskTask], *, mel: LogMel, augment: Change | None = None) -> None:
        super().__init__(SOUND, tasks, prepare=mel, augment=augment)

    def take(self, batch: Batch, generator: Generator) -> Tensor:
        """The spectrograms of a batch."""
        spectrograms: Tensor = super().take({SOUND: checked_sound(batch[SOUND]).flatten(1)}, generator)
        return spectrograms


class SoundObjective(MaskedObjective):
    """The masked loss with a stream of sound; its arguments are those of `MaskedObjective`."""

    main_input = SOUND
    """Input of `encode`, by its name in the log."""

    @property
    def published(self) -> nn.Module:
        """Waveforms to the target's tokens."""
        mel, trunk = self.inputs[0].prepare, super().published
        assert isinstance(mel, LogMel) and isinstance(trunk, PlacedTransformer)
        return SoundEncoder(mel, trunk)

    def encode(self, frames: Sound) -> Latents:
        """The target's tokens of the sound in the window up to each step: `B T G` to `B T N D`.

        Sounds end at the step and are preceded by silence, so that the last step has the full window as in training;
        of a window longer than a spectrogram its end is heard.

        Raises:
            BadObservation: If these are not windows of sound.
        """
        encoder = self.published
        assert isinstance(encoder, SoundEncoder)
        last = encoder.mel.sizes.samples
        return torch.stack([encoder(wave[:, -last:]) for wave in heard(frames)], dim=1)


def heard(sound: Sound) -> list[Waves]:
    """For each step the waveform `B T G` up to it, preceded by silence."""
    wave, (steps, size) = checked_sound(sound).flatten(1), sound.shape[1:]
    silence = [torch.zeros_like(wave[:, : (steps - 1 - step) * size]) for step in range(steps)]
    return [torch.cat([before, wave[:, : (step + 1) * size]], dim=1) for step, before in enumerate(silence)]


def checked_sound(sound: Sound) -> Sound:
    """Windows of sound, after checking their axes.

    Raises:
        BadObservation: If these are not windows of sound.
    """
    if sound.dim() != 3:
        raise BadObservation(f"expected mono sound (B, T, samples of a step), got {tuple(sound.shape)}")
    return sound
