"""Log-mel spectrograms, the encoder of sounds, and features of files."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from jepa_mpc.encoders.mel import LogMel, MelSizes, PeakLevel
from jepa_mpc.encoders.released_sounds import LATER, RELEASED, SIXTEEN
from jepa_mpc.encoders.sound import SoundEncoder, over_time, sound_trunk
from jepa_mpc.encoders.sound_features import encode_sound
from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.errors import BadObservation
from jepa_mpc.seeding import generator

SMALL = MelSizes(rate=8000, frames=16, bands=24, window=200, hop=80, low_hz=50.0)
WAVES = torch.randn(2, 2000, generator=generator(0, "waves"))
LIMIT = 200


def encoder() -> SoundEncoder:
    torch.manual_seed(0)
    sizes = VideoSizes(width=16, depth=2, heads=2, mlp_dim=32, patch=4, patch_width=8, tubelet=1, channels=1)
    return SoundEncoder(LogMel(SMALL), sound_trunk(sizes, SMALL)).eval()


def plain_bank(sizes: MelSizes) -> np.ndarray:
    """The triangles of Kaldi, bin by bin."""
    mel = lambda hz: 1127 * np.log(1 + hz / 700)  # noqa: E731
    low, high = mel(sizes.low_hz), mel(sizes.top_hz)
    step = (high - low) / (sizes.bands + 1)
    bank = np.zeros((sizes.fft // 2 + 1, sizes.bands))
    for band in range(sizes.bands):
        left, centre, right = (low + (band + k) * step for k in range(3))
        for number in range(sizes.fft // 2):
            at = mel(number * sizes.rate / sizes.fft)
            if left < at < right:
                bank[number, band] = (at - left) / step if at <= centre else (right - at) / step
    return bank


def plain_frames(wave: np.ndarray, sizes: MelSizes) -> np.ndarray:
    """Kaldi's filter bank, frame by frame in double precision."""
    rows, bank = [], plain_bank(sizes)
    for start in range(0, len(wave) - sizes.window + 1, sizes.hop):
        frame = wave[start : start + sizes.window] - wave[start : start + sizes.window].mean()
        frame = np.concatenate([[frame[0] * (1 - sizes.preemphasis)], frame[1:] - sizes.preemphasis * frame[:-1]])
        power = np.abs(np.fft.rfft(frame * np.hanning(sizes.window), sizes.fft)) ** 2
        rows.append(np.log(np.maximum(power @ bank, np.finfo(np.float32).eps)))
    return np.stack(rows)


def test_spectrograms_are_those_of_a_plain_filter_bank():
    found = LogMel(SMALL).frames(WAVES)
    assert found.shape == (2, 23, 24)
    for mine, wave in zip(found, WAVES.double().numpy(), strict=True):
        assert np.allclose(mine, plain_frames(wave, SMALL), atol=2e-4)


def test_a_tone_is_loudest_in_its_own_band():
    mel = LogMel(SMALL)
    for hz in (300.0, 1000.0, 3000.0):
        tone = torch.sin(2 * torch.pi * hz * torch.arange(2000) / SMALL.rate)
        band = int(mel.frames(tone[None])[0].mean(dim=0).argmax())
        peak = SMALL.rate / SMALL.fft * float(mel.bank[:, band].argmax())
        assert abs(peak - hz) < 0.12 * hz


def test_missing_frames_are_zero_and_later_ones_are_cut():
    short, long = LogMel(SMALL)(WAVES[:, :600]), LogMel(SMALL)(WAVES)
    assert short.shape == long.shape == (2, 1, 16, 24)
    assert bool((short[:, :, 6:] == 0).all()) and bool((short[:, :, :6] != 0).all())
    assert bool((LogMel(SMALL)(WAVES[:, :100]) == 0).all()), "shorter than one window"
    assert torch.allclose(long[:, 0], LogMel(SMALL).frames(PeakLevel()(WAVES))[:, :16])


def test_the_published_level_forgets_loudness_and_silence_stays_silent():
    mel = LogMel(SMALL)
    assert torch.allclose(mel(WAVES), mel(0.01 * WAVES + 3.0), atol=2e-3)
    assert not torch.allclose(LogMel(SMALL, level=torch.nn.Identity())(0.01 * WAVES), mel(WAVES), atol=1.0)
    silent = mel(torch.zeros(1, 2000))
    assert bool(silent.isfinite().all()) and float(silent.max()) < -15


def test_released_layouts_have_the_published_numbers():
    assert (RELEASED.hop, RELEASED.window) == (1243, 3108) and (SIXTEEN.hop, SIXTEEN.window) == (621, 1552)
    ten = {sizes: torch.zeros(1, 10 * sizes.rate) for sizes in (RELEASED, LATER, SIXTEEN)}
    assert [LogMel(sizes).frames(wave).shape[1] for sizes, wave in ten.items()] == [255, 510, 256]
    faster = RELEASED.at(16000)
    assert (faster.rate, faster.window, faster.frames) == (16000, 1554, 256)


def test_log_mel_is_far_faster_than_real_time():
    mel, wave = LogMel(LATER), torch.randn(1, 10 * LATER.rate, generator=generator(0))
    mel(wave)
    spent = []
    for _ in range(5):
        begun = time.process_time()
        mel(wave)
        spent.append(time.process_time() - begun)
    assert 10.0 / min(spent) > LIMIT  # 420 on the machine of docs/benchmarks.md


def test_seen_patches_keep_their_places_and_bands_run_fastest():
    network = encoder()
    whole = network(WAVES)
    assert whole.shape == (2, 12, 16) and network.trunk.native == (1, 4, 3)
    assert over_time(whole, network.trunk).shape == (2, 4, 16)
    mixed = network.trunk.embed(network.mel(WAVES))[0]
    kept = network.trunk.embed(network.mel(WAVES), torch.tensor([[7, 2], [0, 11]]))[0]
    assert torch.equal(kept[0], mixed[0, [7, 2]]) and torch.equal(kept[1], mixed[1, [0, 11]])
    spectrogram = network.mel(WAVES)
    spectrogram[:, :, :4, 8:16] += 1.0  # first rows, second bands
    moved = (network.trunk.embed(spectrogram)[0] - mixed).abs().sum(dim=(0, 2)) > 1e-6
    assert moved.nonzero().flatten().tolist() == [1]


def test_features_of_a_file_come_clip_by_clip(tmp_path):
    network = encoder()
    wave = WAVES[0, :1800].numpy()
    wavfile.write(tmp_path / "a.wav", 8000, wave)
    assert SMALL.samples == 1400
    found = encode_sound(tmp_path / "a.wav", network.train())
    assert found.shape == (2, 12, 16) and not found.requires_grad and network.training
    with torch.no_grad():
        expected = [network.eval()(torch.from_numpy(part)[None]) for part in (wave[:1400], wave[1400:])]
    assert torch.allclose(found, torch.cat(expected), atol=1e-6)
    wavfile.write(tmp_path / "b.wav", 44100, wave)
    with pytest.raises(BadObservation, match="b.wav has 44100 samples per second, expected 8000: resample it first"):
        encode_sound(tmp_path / "b.wav", network)


@pytest.mark.parametrize(
    ("waves", "said"),
    [
        (torch.zeros(2, 2, 100), r"expected mono waveforms \(B, samples\), got \(2, 2, 100\)"),
        (torch.zeros(2, 0), "the sound has no samples: give at least one"),
        (torch.tensor([[0.0, torch.nan, 1.0]]), "1 of 3 samples are not finite: cut or repair the sound first"),
        (torch.zeros(2, 100, dtype=torch.int16), "expected mono waveforms .* of torch.int16"),
    ],
)
def test_bad_sounds_are_told_in_one_sentence(waves, said):
    with pytest.raises(BadObservation, match=said):
        encoder()(waves)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"frames": 0}, "must be positive"),
        ({"high_hz": 5000.0}, "bands must lie between 0 and half the rate, 4000.0 Hz, got 50.0 to 5000.0 Hz"),
        ({"low_hz": -1.0}, "bands must lie between 0"),
    ],
)
def test_layouts_out_of_range_are_told_in_one_sentence(changes, said):
    numbers = {"rate": 8000, "frames": 16, "bands": 24, "window": 200, "hop": 80, "low_hz": 50.0}
    with pytest.raises(ValueError, match=said):
        MelSizes(**{**numbers, **changes})


def test_patches_must_fill_the_spectrogram():
    sizes = VideoSizes(width=16, depth=1, heads=2, mlp_dim=32, patch=5, patch_width=8, tubelet=1, channels=1)
    with pytest.raises(ValueError, match="a spectrogram of 16 x 24 is not divisible into 5 frames x 8 bands"):
        sound_trunk(sizes, SMALL)
