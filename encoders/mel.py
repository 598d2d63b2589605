"""Log-mel spectrograms in PyTorch, equal to Kaldi's filter banks as used by Audio-JEPA."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_mpc.errors import BadObservation

Waves = Annotated[Tensor, "B G"]
Spectrogram = Annotated[Tensor, "B 1 h w"]
"""Time along rows, mel bands along columns."""

FLOOR = torch.finfo(torch.float32).eps
"""Minimum power of a band before the logarithm."""

WINDOWS_PER_SHIFT = 2.5
MEL_SCALE, MEL_BREAK_HZ = 1127.0, 700.0


@dataclass(frozen=True, kw_only=True)
class MelSizes:
    """Layout of a log-mel spectrogram.

    Args:
        rate: Sample rate, Hz.
        frames: Frames of the spectrogram; shorter sounds are zero-padded, longer ones truncated.
        bands: Mel bands.
        window: Samples per frame.
        hop: Samples between frames.
        low_hz: Lower end of the first band.
        high_hz: Upper end of the last band; by default half the sample rate.
        preemphasis: Share of the previous sample that is subtracted from each sample.
        mean: Subtracted from the log-mel values;
        std: divides them; the published form does neither.

    Raises:
        ValueError: If a number is out of range.
    """

    rate: int
    frames: int
    bands: int
    window: int
    hop: int
    low_hz: float = 20.0
    high_hz: float | None = None
    preemphasis: float = 0.97
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        counts = (self.rate, self.frames, self.bands, self.hop)
        if min(counts) < 1 or self.window < 2 or self.std <= 0:
            raise ValueError(f"rate, frames, bands, hop, window and std must be positive, got {self}")
        if not 0 <= self.low_hz < self.top_hz <= self.rate / 2:
            raise ValueError(
                f"bands must lie between 0 and half the rate, {self.rate / 2} Hz, got {self.low_hz} to {self.top_hz} Hz"
            )

    @property
    def top_hz(self) -> float:
        """Upper end of the last band, Hz."""
        return self.rate / 2 if self.high_hz is None else self.high_hz

    @property
    def samples(self) -> int:
        """Samples that fill all frames."""
        return self.window + (self.frames - 1) * self.hop

    def clips(self, samples: int) -> int:
        """Number of spectrograms of a sound of so many samples; a rest without a single frame gets none of its own."""
        whole, rest = divmod(samples, self.samples)
        return max(1, whole + (rest >= self.window))

    @property
    def fft(self) -> int:
        """Length of the Fourier transform: the window, rounded up to a power of two."""
        return int(2 ** (self.window - 1).bit_length())

    def at(self, rate: int) -> MelSizes:
        """The same durations and bands at another sample rate; a given upper end is kept."""
        window, hop = (max(round(samples * rate / self.rate), 1) for samples in (self.window, self.hop))
        return replace(self, rate=rate, window=window, hop=hop)

    @classmethod
    def filling(cls, *, rate: int, seconds: float, frames: int, bands: int) -> MelSizes:
        """The layout whose frames exactly fill a clip, as in Audio-JEPA's released weights.

        hop = round(n / (frames - 1 + 2.5)),  window = round(2.5 hop)        n samples of the clip
        """
        hop = round(rate * seconds / (frames - 1 + WINDOWS_PER_SHIFT))
        return cls(rate=rate, frames=frames, bands=bands, window=round(WINDOWS_PER_SHIFT * hop), hop=hop)


class PeakLevel(nn.Module):
    """Normalise each waveform to a mean near zero and a peak near one, as in the published training.

    (x - mean) / max|x - mean| + 1e-6
    """

    def forward(self, waves: Waves) -> Waves:
        """Normalise waveforms; silence stays silence."""
        centred = waves - waves.mean(dim=-1, keepdim=True)
        peak = centred.abs().amax(dim=-1, keepdim=True)
        return centred / peak.clamp_min(torch.finfo(waves.dtype).tiny) + 1e-6


class LogMel(nn.Module):
    """Waveforms to log-mel spectrograms.

        log max(eps, bank |FFT(window * preemphasis(frame - mean))|^2)      mel(f) = 1127 ln(1 + f / 700)

    Args:
        sizes: The layout.
        level: Normalises waveforms first: `PeakLevel` (by default), or an identity to keep their loudness.

    Reference: Povey et al. 2011 (Kaldi); Audio-JEPA, arXiv:2507.02915.
    """

    bank: Tensor
    taper: Tensor

    def __init__(self, sizes: MelSizes, *, level: nn.Module | None = None) -> None:
        super().__init__()
        self.sizes = sizes
        self.level = PeakLevel() if level is None else level
        self.register_buffer("taper", torch.hann_window(sizes.window, periodic=False), persistent=False)
        self.register_buffer("bank", mel_bank(sizes), persistent=False)

    def forward(self, waves: Waves) -> Spectrogram:
        """Spectrograms `(B, 1, frames, bands)` of waveforms.

        Raises:
            BadObservation: If these are not finite waveforms of at least one sample.
        """
        found = self.frames(self.level(checked_waves(waves)))[:, : self.sizes.frames]
        found = (found - self.sizes.mean) / self.sizes.std
        return F.pad(found, (0, 0, 0, self.sizes.frames - found.shape[1]))[:, None]

    def frames(self, waves: Waves) -> Annotated[Tensor, "B T w"]:
        """Log-mel values of every frame of the waveforms."""
        sizes = self.sizes
        if waves.shape[-1] < sizes.window:
            return waves.new_zeros(len(waves), 0, sizes.bands)
        cut = waves.unfold(-1, sizes.window, sizes.hop)  # (B, T, window)
        cut = cut - cut.mean(dim=-1, keepdim=True)
        before = torch.cat([cut[..., :1], cut[..., :-1]], dim=-1)
        spectrum = torch.fft.rfft((cut - sizes.preemphasis * before) * self.taper.to(cut.dtype), n=sizes.fft)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power @ self.bank.to(power.dtype)).clamp_min(FLOOR).log()


def checked_waves(waves: Waves) -> Waves:
    """Waveforms `B G`, validated.

    Raises:
        BadObservation: If they have another shape, are empty, or are not finite.
    """
    if waves.dim() != 2 or not waves.is_floating_point():
        raise BadObservation(f"expected mono waveforms (B, samples), got {tuple(waves.shape)} of {waves.dtype}")
    if not waves.shape[1]:
        raise BadObservation("the sound has no samples: give at least one")
    if not bool(waves.isfinite().all()):
        bad = int((~waves.isfinite()).sum())
        raise BadObservation(f"{bad} of {waves.numel()} samples are not finite: cut or repair the sound first")
    return waves


def mel_bank(sizes: MelSizes) -> Annotated[Tensor, "fft/2+1 w"]:
    """Triangular filters, evenly spaced in mel, over the bins of the Fourier transform."""
    low, high = (MEL_SCALE * math.log(1.0 + hz / MEL_BREAK_HZ) for hz in (sizes.low_hz, sizes.top_hz))
    ends = low + (high - low) / (sizes.bands + 1) * torch.arange(sizes.bands + 2, dtype=torch.float64)
    left, centre, right = ends[:-2], ends[1:-1], ends[2:]
    bins_hz = torch.arange(sizes.fft // 2, dtype=torch.float64)[:, None] * (sizes.rate / sizes.fft)
    bins = MEL_SCALE * (1.0 + bins_hz / MEL_BREAK_HZ).log()
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    bank = torch.minimum(rising, falling).clamp_min(0.0)
    return F.pad(bank, (0, 0, 0, 1)).float()  # the last bin, at half the rate, is in no filter
