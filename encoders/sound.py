"""Sounds to tokens: a log-mel spectrogram in patches for the Transformer of I-JEPA."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from jepa_mpc.encoders.mel import LogMel, MelSizes, Waves
from jepa_mpc.encoders.placed import Grid, PlacedTransformer, bicubic, column_first
from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.types import State


def mel_grid(mel: MelSizes, sizes: VideoSizes) -> Grid:
    """Times, rows (along time) and columns (along mel) of the patches of a spectrogram.

    Raises:
        ValueError: If it is not divisible into patches.
    """
    rows, columns = sizes.sides
    if mel.frames % rows or mel.bands % columns:
        raise ValueError(
            f"a spectrogram of {mel.frames} x {mel.bands} is not divisible into {rows} frames x {columns} bands"
        )
    return 1, mel.frames // rows, mel.bands // columns


def sound_trunk(sizes: VideoSizes, mel: MelSizes) -> PlacedTransformer:
    """The Transformer over patches of spectrograms, time-major, with the table of I-JEPA (band, then time).

    Raises:
        ValueError: If the spectrogram is not divisible into patches.
    """
    return PlacedTransformer(sizes, grid=mel_grid(mel, sizes), table=column_first, resize=bicubic)


class SoundEncoder(nn.Module):
    """Waveforms to the tokens of their spectrograms.

    Args:
        mel: Makes spectrograms.
        trunk: Encodes them.

    Reference: Audio-JEPA, arXiv:2507.02915.
    """

    def __init__(self, mel: LogMel, trunk: PlacedTransformer) -> None:
        super().__init__()
        self.mel, self.trunk = mel, trunk
        self.width = trunk.width

    def forward(self, x: Waves, keep: Annotated[Tensor, "B K"] | None = None) -> State:
        """Encode waveforms `(B, samples)` to `(B, N, D)`, time-major; `keep` selects the visible patches.

        Raises:
            BadObservation: If these are not finite mono waveforms.
        """
        return self.trunk(self.mel(x), keep)


def over_time(tokens: State, trunk: PlacedTransformer) -> Annotated[Tensor, "B T D"]:
    """One vector per row of patches, the mean over its bands, as in Audio-JEPA's evaluation."""
    return tokens.unflatten(1, trunk.native[1:]).mean(dim=2)
