"""Sounds from .wav files: every kind of number, and one sentence for each that cannot be heard."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import wavfile

from jepa_mpc.errors import BadObservation
from jepa_mpc.sound_files import checked_sound, read_sound

WAVE = 0.5 * np.sin(np.arange(500) / 10)


@pytest.mark.parametrize(
    ("samples", "step"),
    [
        ((128 + 127 * WAVE).astype(np.uint8), 1 / 64),
        ((32767 * WAVE).astype(np.int16), 1e-4),
        ((2**31 * WAVE).astype(np.int32), 1e-6),
        (WAVE.astype(np.float32), 1e-7),
        (WAVE, 1e-7),
    ],
)
def test_every_kind_of_number_is_brought_to_one_scale(samples, step, tmp_path):
    wavfile.write(tmp_path / "a.wav", 8000, samples)
    found, rate = read_sound(tmp_path / "a.wav")
    assert rate == 8000 and found.dtype == np.float32
    assert np.allclose(found, WAVE, atol=step)


def test_three_byte_numbers_and_odd_chunks_are_read(tmp_path):
    whole = (2**23 * WAVE).astype("<i4")
    data = whole.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    head = (
        np.array([1, 1], "<u2").tobytes()
        + np.array([8000, 24000], "<u4").tobytes()
        + np.array([3, 24], "<u2").tobytes()
    )
    chunks = [(b"LIST", b"odd"), (b"fmt ", head), (b"data", data)]
    body = b"".join(n + np.uint32(len(c)).tobytes() + c + b"\0" * (len(c) % 2) for n, c in chunks)
    (tmp_path / "a.wav").write_bytes(b"RIFF" + np.uint32(4 + len(body)).tobytes() + b"WAVE" + body)
    assert np.allclose(read_sound(tmp_path / "a.wav")[0], WAVE, atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.zeros((50, 2), np.int16), "a.wav has 2 channels, expected mono: use one of them, or their mean"),
        (np.zeros(0, np.int16), "a.wav has no samples: give at least one"),
        (np.array([0, np.nan, 0], np.float32), "a.wav has 1 of 3 samples that are not finite: cut or repair it first"),
        (np.zeros(50, np.int64), "a.wav cannot be read as a .wav sound .*64 bits of format 1"),
    ],
)
def test_sounds_that_cannot_be_heard_are_told_in_one_sentence(samples, said, tmp_path):
    wavfile.write(tmp_path / "a.wav", 8000, samples)
    with pytest.raises(BadObservation, match=said):
        read_sound(tmp_path / "a.wav")


def test_the_rate_must_be_the_wanted_one(tmp_path):
    wavfile.write(tmp_path / "a.wav", 8000, np.zeros(9, np.int16))
    with pytest.raises(BadObservation, match="a.wav has 8000 samples per second, expected 16000: resample it first"):
        read_sound(tmp_path / "a.wav", rate=16000)


@pytest.mark.parametrize("keep", [0, 10, 20, 40, 60, 143])
def test_a_file_cut_short_is_told_in_one_sentence(keep, tmp_path):
    wavfile.write(tmp_path / "a.wav", 8000, np.ones(50, np.int16))
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:keep])
    with pytest.raises(BadObservation, match="a.wav cannot be read as a .wav sound"):
        read_sound(tmp_path / "a.wav")


def test_missing_files_and_other_kinds_are_told(tmp_path):
    with pytest.raises(BadObservation, match="there is no file"):
        read_sound(tmp_path / "a.wav")
    with pytest.raises(BadObservation, match="a.mp3: expected a sound in a .wav file"):
        read_sound(tmp_path / "a.mp3")
    with pytest.raises(BadObservation, match="this sound has no samples"):
        checked_sound(np.zeros(0))
