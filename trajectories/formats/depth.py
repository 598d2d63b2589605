"""Depth as LeRobot stores it: 12-bit codes in greyscale videos, or one-channel images inside the tables.

Decoded depth is float32 in m, and 0 where nothing was measured.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.trajectories.formats.image_codec import STRIP, opened_picture

HIGHEST = 4095
MILLIMETRE = 0.001
FARTHEST_M = 1e6
WORDS = {"low_m": "video.depth_min", "high_m": "video.depth_max", "shift_m": "video.shift",
         "logarithmic": "video.use_log"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DepthCodes:
    """The mapping between metres and the codes of a video.

        code = 4095 (w(d) - w(low)) / (w(high) - w(low)),   w(d) = ln(d + shift), or d where `logarithmic` is False

    Code 0 stands for every depth up to `low`, in particular 0, and decodes to 0. The defaults are LeRobot's own: it
    uses
    them when it appends episodes, whatever the log declares.

    Args:
        low_m: Nearest depth with a code of its own, m.
        high_m: Depth of code 4095, m.
        shift_m: Added before the logarithm, m.
        logarithmic: Whether near depths have the finer resolution.

    Raises:
        ValueError: If the numbers are not a valid range.
    """

    low_m: float = 0.01
    high_m: float = 10.0
    shift_m: float = 3.5
    logarithmic: bool = True

    def __post_init__(self) -> None:
        numbers = (self.low_m, self.high_m, self.shift_m)
        if not all(isinstance(number, int | float) and abs(number) <= FARTHEST_M for number in numbers):
            raise ValueError(f"depth codes need numbers up to {FARTHEST_M:g} m, got {str(numbers)[:200]}")
        if not self.low_m < self.high_m or (self.logarithmic and self.low_m + self.shift_m <= 0):
            raise ValueError(f"depth codes need low < high and low + shift > 0, got {numbers}")

    def encode(self, depth_m: np.ndarray) -> np.ndarray:
        """Metres in, codes (uint16) out.

        Raises:
            ValueError: If a depth is negative or beyond the largest code.
        """
        if depth_m.min() < 0 or depth_m.max() > self.high_m:
            found = f"{depth_m.min():.3g} to {depth_m.max():.3g} m"
            raise ValueError(f"is {found}, a video keeps 0 to {self.high_m:g} m; use frames=image")
        low, high = self._ends()
        shares = (self._warp(depth_m.astype(np.float64).clip(self.low_m)) - low) / (high - low)
        return np.rint(HIGHEST * shares).astype(np.uint16)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes in, metres (float32) out."""
        low, high = self._ends()
        warped = low + (high - low) * np.arange(HIGHEST + 1) / HIGHEST
        metres = np.exp(warped) - self.shift_m if self.logarithmic else warped
        metres[0] = 0.0
        found: np.ndarray = metres.astype(np.float32)[np.minimum(codes, HIGHEST)]
        return found

    def to_info(self) -> dict[str, Any]:
        """LeRobot's entries for it, in a feature's `info`."""
        return {key: getattr(self, name) for name, key in WORDS.items()}

    def _ends(self) -> tuple[float, float]:
        low, high = self._warp(np.array([self.low_m, self.high_m]))
        return float(low), float(high)

    def _warp(self, depth_m: np.ndarray) -> np.ndarray:
        warped: np.ndarray = np.log(depth_m + self.shift_m) if self.logarithmic else depth_m
        return warped


def depth_codes(info: Mapping[str, Any]) -> DepthCodes:
    """The codes that a feature's `info` describes; LeRobot's defaults for missing entries.

    Raises:
        ValueError: If the numbers are not a valid range.
    """
    told = {name: info[key] for name, key in WORDS.items() if key in info}
    return DepthCodes(**told)


def decode_depth(data: Any, shape: Sequence[int], *, unit: str | None) -> np.ndarray:
    """Decode a one-channel image to metres, float32 `h w`.

    Args:
        data: PNG or TIFF bytes.
        shape: The expected size `h w`.
        unit: `m` or `mm`; None takes integers as mm and floats as m, as LeRobot does.

    Raises:
        BadEpisode: If it is damaged, or has another size or several channels.
    """
    with opened_picture(data, ("PNG", "TIFF")) as image:
        if (image.height, image.width) != tuple(shape):
            raise BadEpisode(f"an image of {image.height} x {image.width} where {shape[0]} x {shape[1]} is declared")
        if len(image.getbands()) != 1:
            raise BadEpisode(f"a picture with the channels {'/'.join(image.getbands())} where depth is declared")
        metres = np.empty(tuple(shape), np.float32)
        for top in range(0, image.height, STRIP):
            strip = np.asarray(image.crop((0, top, image.width, min(top + STRIP, image.height))))
            in_mm = (unit or ("m" if strip.dtype.kind == "f" else "mm")) == "mm"
            exact = strip.astype(np.float64) * (MILLIMETRE if in_mm else 1.0)
            metres[top : top + STRIP] = np.nan_to_num(exact, nan=0.0, posinf=0.0, neginf=0.0)
    return metres


def encode_depth(depth_m: np.ndarray) -> bytes:
    """Metres `h w` as a lossless TIFF of float32."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(depth_m, dtype=np.float32)).save(file, format="TIFF", compression="raw")
    return file.getvalue()
