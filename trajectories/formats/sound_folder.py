"""Folders of sounds alone: sound to learn from without robot data.

sounds/a.wav  sounds/b.wav  sounds/more/c.wav         each sound is an episode with steps of a quarter of a second
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from jepa_mpc.errors import BadObservation
from jepa_mpc.interfaces import Field
from jepa_mpc.sound_files import SUFFIXES, Wave, read_sound
from jepa_mpc.trajectories.episode import IMAGES, SOUND
from jepa_mpc.trajectories.formats.folders import FolderReader

CAMERA = "loudness"
STEP_S = 0.25
SIDE = 32
QUIETEST = 1e-4


class SoundFolderReader(FolderReader):
    """Sounds of a folder and its subfolders, all mono and with the same rate.

    The last step of a sound is padded with silence. Each step has a small image of its loudness, so that viewers of the
    log have an image to show.

    Args:
        path: The folder.

    Raises:
        BadEpisode: If there is no sound, or all are damaged, not mono or of other rates than the first.
    """

    format: ClassVar[str] = "sounds"
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
    held: ClassVar[str] = SOUND

    def __init__(self, path: str | Path) -> None:
        self.rate: int | None = None
        super().__init__(path)
        assert self.rate is not None
        self.dt_s = self.step / self.rate
        self.cameras = (CAMERA,)
        self.fields = {
            IMAGES + CAMERA: Field((SIDE, SIDE, 3), "uint8", "RGB", 1 / self.dt_s),
            SOUND: Field((self.step,), "float32", "", 1 / self.dt_s),
        }

    def columns(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The requested ones of the sound and its image."""
        wave = self._wave(episode)
        steps = np.pad(wave, (0, self.lengths[episode] * self.step - len(wave))).reshape(-1, self.step)[start:stop]
        return {name: steps if name == SOUND else loudness(steps) for name in names}

    @property
    def step(self) -> int:
        """Samples of a step."""
        assert self.rate is not None
        return round(STEP_S * self.rate)

    def count(self, index: int) -> int:
        """Steps of a sound; the first sound decides the rate."""
        return -(-len(self._wave(index)) // self.step)

    def _wave(self, index: int) -> Wave:
        try:
            wave, self.rate = read_sound(self.files[index], rate=self.rate)
        except BadObservation as error:
            raise self.complaint(index, error) from error
        return wave


def loudness(steps: np.ndarray) -> np.ndarray:
    """Images `T h w 3` of sounds `T G`: the level over time, from -80 dB at the bottom to full scale."""
    ends = np.linspace(0, steps.shape[1], SIDE + 1).astype(int)
    peaks = np.stack([np.abs(steps[:, a:b]).max(axis=1, initial=0.0) for a, b in zip(ends, ends[1:], strict=False)], 1)
    height = 1 - np.log10(np.clip(peaks, QUIETEST, 1.0)) / np.log10(QUIETEST)  # (T, w), 0 to 1
    lit = np.arange(SIDE, 0, -1)[:, None] <= SIDE * height[:, None]
    return np.repeat((255 * lit).astype(np.uint8)[..., None], 3, axis=3)
