"""Procedural surface textures: small RGB tiles, reproducible by seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jepa_mpc.envs.labs import Texture, hsv
from jepa_mpc.errors import choose
from jepa_mpc.seeding import numpy_generator

Pattern = Callable[[int, np.random.Generator], np.ndarray]


def paint(texture: Texture, size: int) -> np.ndarray:
    """The texture as uint8 `(size, size, 3)`: a pattern in [0, 1] that blends two colours of similar hue.

    Raises:
        UnknownName: If the texture's family is unknown.
    """
    rng = numpy_generator(texture.seed, "texture", texture.family)
    pattern = choose(FAMILIES, texture.family, "texture family")(size, rng)
    saturation, value = rng.uniform(0.05, 0.65), rng.uniform(0.25, 0.9)
    first = hsv(texture.hue, saturation, value)
    second = hsv(
        texture.hue + rng.uniform(-0.04, 0.04), saturation * rng.uniform(0.5, 1.0), value * rng.uniform(0.55, 0.9)
    )
    rgb = first + pattern[..., None] * (second - first)
    return np.round(255 * np.clip(rgb, 0, 1)).astype(np.uint8)


def _smooth_noise(size: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Periodic value noise in [0, 1]: a random grid, interpolated with a smooth step."""
    grid = rng.random((cells, cells))
    at = np.arange(size) * cells / size
    low = at.astype(int)
    part = at - low
    part = part * part * (3 - 2 * part)
    rows = grid[low % cells] * (1 - part[:, None]) + grid[(low + 1) % cells] * part[:, None]
    return rows[:, low % cells] * (1 - part) + rows[:, (low + 1) % cells] * part


def _plain(size: int, rng: np.random.Generator) -> np.ndarray:
    return 0.1 * rng.random((size, size))


def _noise(size: int, rng: np.random.Generator) -> np.ndarray:
    return 0.6 * _smooth_noise(size, 6, rng) + 0.4 * _smooth_noise(size, 13, rng)


def _checker(size: int, rng: np.random.Generator) -> np.ndarray:
    tiles = int(rng.integers(1, 4)) * 2
    at = np.arange(size) * tiles // size
    return ((at[:, None] + at[None, :]) % 2).astype(float)


def _stripes(size: int, rng: np.random.Generator) -> np.ndarray:
    boards = int(rng.integers(2, 6))
    at = np.arange(size) / size
    grain = 0.35 * _smooth_noise(size, 9, rng) + 0.65 * rng.random(boards)[(at * boards).astype(int)][None, :]
    return np.clip(grain + (np.mod(at * boards, 1.0) < 0.06)[None, :], 0, 1)


def _marble(size: int, rng: np.random.Generator) -> np.ndarray:
    at = np.arange(size) / size
    turbulence = _smooth_noise(size, 4, rng) + 0.5 * _smooth_noise(size, 8, rng)
    return 0.5 + 0.5 * np.sin(2 * np.pi * (2 * at[None, :] + at[:, None] + 1.2 * turbulence))


def _gradient(size: int, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    at = 2 * np.pi * np.arange(size) / size
    wave = np.sin(at[None, :] * np.round(np.cos(angle)) + at[:, None] + angle)
    return np.clip(0.5 + 0.4 * wave + 0.2 * (_smooth_noise(size, 3, rng) - 0.5), 0, 1)


FAMILIES: dict[str, Pattern] = {
    "plain": _plain,
    "noise": _noise,
    "checker": _checker,
    "stripes": _stripes,
    "marble": _marble,
    "gradient": _gradient,
}
