"""The released encoders of Audio-JEPA: sizes and spectrogram layouts."""

from __future__ import annotations

from dataclasses import dataclass

from jepa_mpc.encoders.mel import MelSizes
from jepa_mpc.encoders.video import VideoSizes

BASE = VideoSizes(width=768, depth=12, heads=12, mlp_dim=3072, patch=16, tubelet=1, channels=1, eps=1e-5)

RELEASED = MelSizes.filling(rate=32000, seconds=10.0, frames=256, bands=128)
"""Spectrograms of 10 s as the authors' loader makes them for `JEPA.ckpt`."""

LATER = MelSizes(rate=32000, frames=512, bands=96, window=1562, hop=625)
"""Spectrograms of 10 s of the later training code: 510 frames and 2 of zeros."""

SIXTEEN = MelSizes.filling(rate=16000, seconds=10.0, frames=256, bands=128)
"""Spectrograms of 10 s at 16 kHz, for `Audio-JEPA-base`."""


@dataclass(frozen=True, kw_only=True)
class SoundRelease:
    """A released sound encoder.

    Args:
        mel: Layout of its spectrograms.
        file: The authors' file.
        repository: Its Hugging Face repository, or None.
    """

    mel: MelSizes
    file: str
    repository: str | None = None


SOUND_RELEASES: dict[str, SoundRelease] = {
    "audio_jepa": SoundRelease(mel=RELEASED, file="JEPA.ckpt", repository="ltuncay/Audio-JEPA"),
    "audio_jepa_512": SoundRelease(mel=LATER, file="JEPA.ckpt"),
    "audio_jepa_base": SoundRelease(mel=SIXTEEN, file="model.safetensors", repository="ltuncay/Audio-JEPA-base"),
}
