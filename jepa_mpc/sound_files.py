"""Sounds from .wav files, and what a sound one is."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Annotated

import numpy as np
from scipy.io import wavfile

from jepa_mpc.errors import BadObservation

Wave = Annotated[np.ndarray, "G"]

SUFFIXES = (".wav",)
MOST_BYTES = 1 << 30
CUT_SHORT = "Reached EOF prematurely"
UNREADABLE = (OSError, ValueError, KeyError, EOFError, struct.error, UnicodeDecodeError, wavfile.WavFileWarning)


def read_sound(file: str | Path, *, rate: int | None = None) -> tuple[Wave, int]:
    """The samples of a file.

    Args:
        file: A mono `.wav` of whole numbers (8 to 64 bits) or floating-point numbers.
        rate: Samples per second that it must have, Hz; None for any.

    Returns:
        float32 `G`, whole numbers brought to -1 .. 1; and the samples per second.

    Raises:
        BadObservation: If the file is missing, damaged, not mono, empty, not finite or of another rate.
    """
    path = Path(file)
    if path.suffix.lower() not in SUFFIXES:
        raise BadObservation(f"{path.name}: expected a sound in a .wav file")
    if not path.is_file():
        raise BadObservation(f"there is no file {path}")
    if path.stat().st_size > MOST_BYTES:
        raise BadObservation(f"{path.name} has {path.stat().st_size} bytes: the most for a sound is {MOST_BYTES}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            warnings.filterwarnings("error", message=CUT_SHORT, category=wavfile.WavFileWarning)
            found, samples = wavfile.read(path)
    except UNREADABLE as error:
        raise BadObservation(f"{path.name} cannot be read as a .wav sound (cut short?): {error}") from error
    if rate is not None and found != rate:
        raise BadObservation(f"{path.name} has {found} samples per second, expected {rate}: resample it first")
    return checked_sound(_scaled(samples), where=path.name), int(found)


def checked_sound(wave: np.ndarray, *, where: str = "this sound") -> Wave:
    """Samples as float32, after a look at them.

    Raises:
        BadObservation: If they are not mono, none, or not finite.
    """
    if wave.ndim != 1:
        channels = wave.shape[-1] if wave.ndim == 2 else wave.shape
        raise BadObservation(f"{where} has {channels} channels, expected mono: take one of them, or their mean")
    if not len(wave):
        raise BadObservation(f"{where} has no samples: give at least one")
    bad = len(wave) - int(np.isfinite(wave).sum())
    if bad:
        raise BadObservation(f"{where} has {bad} of {len(wave)} samples that are not finite: cut or repair it first")
    return np.ascontiguousarray(wave, dtype=np.float32)


def _scaled(samples: np.ndarray) -> np.ndarray:
    """Whole numbers to -1 .. 1; unsigned ones have their zero in the middle."""
    if samples.dtype.kind not in "iu":
        return samples
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    zero = half if samples.dtype.kind == "u" else 0.0
    return (samples.astype(np.float64) - zero) / half
