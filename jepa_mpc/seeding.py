"""Named, independent streams of random numbers: the only source of randomness in this project."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch


def seed_of(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on the base seed and on every name, in order."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for the stream of these names: `generator(0, "planner")`."""
    return torch.Generator(device=device).manual_seed(seed_of(seed, *names))


def generators(
    seed: int | Sequence[int], *names: str | int, device: torch.device | str = "cpu"
) -> torch.Generator | list[torch.Generator]:
    """The generator of a seed, or one per seed: of worlds side by side each has its own, as if it were alone."""
    if isinstance(seed, Sequence):
        return [generator(one, *names, device=device) for one in seed]
    return generator(seed, *names, device=device)


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator for the stream of these names: `numpy_generator(0, "lab", 12)`."""
    return np.random.default_rng(seed_of(seed, *names))
