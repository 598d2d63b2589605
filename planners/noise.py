"""Standard noise for plans: zero mean and unit variance, independent (white) or correlated in time (coloured)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Literal, Protocol

import torch
from torch import Generator, Tensor

from jepa_mpc.types import Plans, Streams

Shape = tuple[int, int, int, int]
Unit = Literal["spectrum", "sequence"]

SHORT_PLAN = 128  # entries per plan up to which one large matrix product beats many small ones


class Noise(Protocol):
    """Draws noise for a set of plans."""

    def __call__(self, shape: Shape, generator: Streams, like: Tensor) -> Plans:
        """Noise of shape (B, S, H, A), with the dtype and on the device of `like`.

        With one generator per world, each world's noise comes from its own generator, as if drawn alone.
        """


@dataclass(frozen=True)
class WhiteNoise:
    """Independent standard normal noise."""

    def __call__(self, shape: Shape, generator: Streams, like: Tensor) -> Plans:
        """Noise of shape (B, S, H, A)."""
        if isinstance(generator, Generator):
            return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
        drawn = torch.empty(shape, device=like.device, dtype=like.dtype)
        for world, own in enumerate(generator):
            drawn[world].normal_(generator=own)
        return drawn


@dataclass(frozen=True, kw_only=True)
class ColouredNoise:
    """Normal noise whose power falls with frequency as f^-beta, scaled to unit variance over time.

    Neighbouring actions are correlated, so candidates move further than with white noise of the same size.

    Args:
        beta: Exponent of the power spectrum; 0 is white, 2 resembles a random walk.
        white: Draws the white noise that is coloured.
        unit: What has unit variance: "spectrum" scales by the expected power of the spectrum, so the size of sequences
            varies; "sequence" scales each one by its own standard deviation over time.

    Reference: Pinneri et al. 2020, arXiv:2008.06389, section 3.1.
    """

    beta: float
    white: Noise = field(default_factory=WhiteNoise)
    unit: Unit = "spectrum"

    def __post_init__(self) -> None:
        if self.unit not in ("spectrum", "sequence"):
            raise ValueError(f"unit must be 'spectrum' or 'sequence', got {self.unit!r}")

    def __call__(self, shape: Shape, generator: Streams, like: Tensor) -> Plans:
        """Noise of shape (B, S, H, A)."""
        white = self.white(shape, generator, like)
        return self.shape_in_time(white) if shape[2] > 1 else white

    def shape_in_time(self, white: Plans) -> Plans:
        """Colour white noise `B S H A` along H; the constant part gets the power of the lowest frequency."""
        steps, actions = white.shape[2:]
        if steps * actions <= SHORT_PLAN:
            mixing = _filter(steps, self.beta, actions, white.dtype, white.device)
            coloured = (white.flatten(2) @ mixing.T).view_as(white)
        else:
            coloured = _filter(steps, self.beta, 1, white.dtype, white.device) @ white  # (B, S, H, A)
        if self.unit == "spectrum":
            return coloured
        own = coloured.std(dim=2, keepdim=True, correction=1)
        return coloured / own.clamp(min=torch.finfo(white.dtype).tiny)


@lru_cache(maxsize=64)
def _filter(
    steps: int, beta: float, actions: int, dtype: torch.dtype, device: torch.device
) -> Annotated[Tensor, "D D"]:
    """The matrix that colours white plans, flattened to D = H `actions`: spectrum times f^(-beta/2), unit variance."""
    frequency = torch.fft.rfftfreq(steps, dtype=torch.float64)
    frequency[0] = frequency[1]
    spectrum = torch.fft.rfft(torch.eye(steps, dtype=torch.float64), dim=0)
    mixed = torch.fft.irfft(spectrum * (frequency ** (-beta / 2))[:, None], n=steps, dim=0)
    mixed = mixed / mixed.square().sum(dim=1, keepdim=True).sqrt()
    return torch.kron(mixed.contiguous(), torch.eye(actions, dtype=torch.float64)).to(device, dtype)
