"""Sounds from .wav files, and their validation. No file content is executed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np

from jepa_mpc.errors import BadObservation

Wave = Annotated[np.ndarray, "G"]

SUFFIXES = (".wav",)
MOST_BYTES = 1 << 30
RATES_HZ = (100, 1_000_000)
WHOLE, FLOATING, EXTENSIBLE = 1, 3, 0xFFFE
KINDS = {
    (WHOLE, 8): "u1", (WHOLE, 16): "<i2", (WHOLE, 24): "<i3", (WHOLE, 32): "<i4", (FLOATING, 32): "<f4",
    (FLOATING, 64): "<f8",
}  # fmt: skip


def read_sound(file: str | Path, *, rate: int | None = None) -> tuple[Wave, int]:
    """The samples of a file.

    Args:
        file: A mono `.wav` of integer (8, 16, 24 or 32 bits) or floating-point samples (32 or 64 bits).
        rate: Required sample rate (Hz); None for any.

    Returns:
        float32 `G`, integers scaled to -1 .. 1; and the sample rate.

    Raises:
        BadObservation: If the file is missing, damaged, not mono, empty, not finite or has another sample rate.
    """
    path = Path(file)
    if path.suffix.lower() not in SUFFIXES:
        raise BadObservation(f"{path.name}: expected a sound in a .wav file")
    try:
        if not path.is_file():
            raise BadObservation(f"there is no file {path}")
        if path.stat().st_size > MOST_BYTES:
            raise BadObservation(f"{path.name} has {path.stat().st_size} bytes: the most for a sound is {MOST_BYTES}")
        samples, found = _riff(path.read_bytes())
    except BadObservation:
        raise
    except (OSError, ValueError, struct.error) as error:
        raise BadObservation(f"{path.name} cannot be read as a .wav sound (cut short?): {error}") from error
    if rate is not None and found != rate:
        raise BadObservation(f"{path.name} has {found} samples per second, expected {rate}: resample it first")
    return checked_sound(samples, where=path.name), found


def checked_sound(wave: np.ndarray, *, where: str = "this sound") -> Wave:
    """Samples as float32, validated.

    Raises:
        BadObservation: If they are not mono, empty, or not finite.
    """
    if wave.ndim != 1:
        channels = wave.shape[-1] if wave.ndim == 2 else wave.shape
        raise BadObservation(f"{where} has {channels} channels, expected mono: use one of them, or their mean")
    if not len(wave):
        raise BadObservation(f"{where} has no samples: give at least one")
    bad = len(wave) - int(np.isfinite(wave).sum())
    if bad:
        raise BadObservation(f"{where} has {bad} of {len(wave)} samples that are not finite: cut or repair it first")
    return np.array(wave, dtype=np.float32)


def _riff(raw: bytes) -> tuple[np.ndarray, int]:
    """Samples `G`, or `G channels` if there are several, and their sample rate."""
    if raw[:4] != b"RIFF" or raw[8:12] != b"WAVE":
        raise ValueError("it lacks the RIFF header")
    chunks = dict(_chunks(raw))
    if b"fmt " not in chunks or b"data" not in chunks:
        raise ValueError("it has no format chunk, or no samples")
    head, data = chunks[b"fmt "], chunks[b"data"]
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", head)
    if kind == EXTENSIBLE:
        kind = struct.unpack_from("<H", head, 24)[0]
    if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
        raise ValueError(f"expected {RATES_HZ[0]} to {RATES_HZ[1]} samples per second, got {rate}")
    if (kind, bits) not in KINDS or not channels:
        raise ValueError(f"expected integer or floating-point samples, got {bits} bits of format {kind}")
    samples = _numbers(data[: len(data) // (channels * bits // 8) * (channels * bits // 8)], KINDS[kind, bits])
    return (samples if channels == 1 else samples.reshape(-1, channels)), int(rate)


def _chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(raw):
        name, size = struct.unpack_from("<4sI", raw, at)
        if at + 8 + size > len(raw):
            raise ValueError(f"chunk {name!r} declares {size} bytes, the file holds {len(raw) - at - 8}")
        yield name, raw[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _numbers(data: bytes, kind: str) -> np.ndarray:
    """Samples as floating-point numbers: integers scaled to -1 .. 1, unsigned ones centred."""
    if kind == "<i3":  # 24-bit samples become the upper bytes of 32-bit ones
        wide = np.zeros((len(data) // 3, 4), dtype=np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0] / 2.0**31
    samples = np.frombuffer(data, kind)
    if samples.dtype.kind == "f":
        return samples
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    return samples / half - (1.0 if samples.dtype.kind == "u" else 0.0)
