"""Standard noise for plans: zero mean and unit variance, independent (white) or correlated in time (coloured)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from core.types import Plans

Shape = tuple[int, int, int, int]


class Noise(Protocol):
    """Draws noise for a set of plans."""

    def __call__(self, shape: Shape, generator: Generator, like: Tensor) -> Plans:
        """Noise of shape (B, S, H, A), with the dtype and on the device of `like`."""


@dataclass(frozen=True)
class WhiteNoise:
    """Independent normal numbers."""

    def __call__(self, shape: Shape, generator: Generator, like: Tensor) -> Plans:
        """Noise of shape (B, S, H, A)."""
        return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)


@dataclass(frozen=True, kw_only=True)
class ColouredNoise:
    """Normal noise whose power falls with frequency as f^-beta, scaled to unit variance over time.

    Neighbouring actions resemble each other, so candidates move further than with white noise of the same size.

    Args:
        beta: Exponent of the power spectrum; 0 is white, 2 resembles a random walk.

    Reference: Pinneri et al. 2020, arXiv:2008.06389, section 3.1.
    """

    beta: float = 2.0

    def __call__(self, shape: Shape, generator: Generator, like: Tensor) -> Plans:
        """Noise of shape (B, S, H, A)."""
        white = torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
        return self.shape_in_time(white) if shape[2] > 1 else white

    def shape_in_time(self, white: Plans) -> Plans:
        """Colour white noise `B S H A` along H; the lowest frequency stands in for the constant part."""
        frequency = torch.fft.rfftfreq(white.shape[2], device=white.device, dtype=white.dtype)
        frequency[0] = frequency[1]
        spectrum = torch.fft.rfft(white, dim=2) * (frequency ** (-self.beta / 2))[:, None]
        coloured = torch.fft.irfft(spectrum, n=white.shape[2], dim=2)  # (B, S, H, A)
        gain = frequency.new_full((white.shape[2] // 2 + 1,), 2.0)
        gain[0] = 1.0
        if white.shape[2] % 2 == 0:
            gain[-1] = 1.0
        power = (gain * frequency**-self.beta).sum() / white.shape[2]
        return coloured / power.sqrt()
