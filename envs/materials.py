"""Impact sounds: a few damped modes per material."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.typing import NDArray

Modes = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Material:
    """A material, as the modes of a 6 cm body.

        y(t) = sum_k gain_k exp(-t / decay_k) sin(2 pi frequency_k t)         after an impulse of 1 N s

    Args:
        name: Its name.
        frequencies_hz: Frequencies of the modes.
        decays_s: Decay time of each mode to 1 / e.
        gains: Amplitude of each mode after an impulse of 1 N s.
        roughness: Impulse per second of slipping under 1 N at 1 m/s, N s.

    Raises:
        ValueError: If the numbers of mode parameters differ, or a number is not positive.
    """

    name: str
    frequencies_hz: Modes
    decays_s: Modes
    gains: Modes
    roughness: float

    def __post_init__(self) -> None:
        numbers = (*self.frequencies_hz, *self.decays_s, *self.gains)
        if not len(self.frequencies_hz) == len(self.decays_s) == len(self.gains) or min(numbers, default=0.0) <= 0:
            raise ValueError(f"{self.name}: need as many positive frequencies as decays and gains, got {numbers}")

    def scaled(self, size: float) -> Material:
        """A body that is `size` times as large: its modes are lower and decay slower by that factor."""
        frequencies, decays = tuple(f / size for f in self.frequencies_hz), tuple(d * size for d in self.decays_s)
        return replace(self, frequencies_hz=frequencies, decays_s=decays)


MATERIALS: dict[str, Material] = {
    one.name: one
    for one in (
        Material(
            name="wood", frequencies_hz=(310.0, 780.0, 1350.0, 2400.0), decays_s=(0.035, 0.025, 0.018, 0.012),
            gains=(3.0, 2.0, 1.2, 0.8), roughness=0.5,
        ),
        Material(
            name="metal", frequencies_hz=(820.0, 2250.0, 4400.0, 6900.0), decays_s=(0.35, 0.25, 0.15, 0.1),
            gains=(1.5, 1.8, 1.5, 1.0), roughness=0.2,
        ),
        Material(
            name="glass", frequencies_hz=(1400.0, 3300.0, 5200.0, 7300.0), decays_s=(0.12, 0.09, 0.06, 0.04),
            gains=(1.5, 2.0, 1.5, 1.0), roughness=0.15,
        ),
        Material(
            name="plastic", frequencies_hz=(220.0, 560.0, 980.0, 1700.0), decays_s=(0.02, 0.014, 0.01, 0.007),
            gains=(3.0, 2.0, 1.2, 0.8), roughness=0.4,
        ),
    )
}  # fmt: skip
"""Name -> material."""


class Ringing:
    """The modes of one object, simulated sample by sample; they keep ringing across calls.

    Args:
        material: The material.
        rate: Samples per second; modes at half of it and above are omitted.

    Reference: van den Doel and Pai 1998, "The sounds of physical shapes" (modal synthesis).
    """

    def __init__(self, material: Material, *, rate: int) -> None:
        self._modes = []
        for frequency, decay, gain in zip(material.frequencies_hz, material.decays_s, material.gains, strict=True):
            if frequency < rate / 2:
                angle, shrink = 2 * np.pi * frequency / rate, np.exp(-1 / (decay * rate))
                ahead = np.array([0.0, gain * shrink * np.sin(angle)])
                self._modes.append((ahead, np.array([1.0, -2 * shrink * np.cos(angle), shrink**2])))
        self._rest = [np.zeros(2) for _ in self._modes]

    def __call__(self, blows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sound of impulses (N s in each sample)."""
        sound = np.zeros_like(blows)
        for index, (ahead, back) in enumerate(self._modes):
            rung, self._rest[index] = scipy.signal.lfilter(ahead, back, blows, zi=self._rest[index])
            sound += rung
        return sound
