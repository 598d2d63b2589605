"""Predictors in reduced precision: half the memory, and faster on hardware that supports it."""

from __future__ import annotations

import copy
import time
from functools import cache
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)

SIZE, ROUNDS = 256, 5
WORTH = 0.8  # maximum time ratio: a smaller gain does not justify 16-bit precision


@cache
def fast_dtype(device: str = "cpu") -> torch.dtype:
    """The faster dtype for matrix products on this machine, measured once per process and device.

    CPUs without bfloat16 instructions emulate it, several times slower than float32. The measurement is the fastest of
    five products of 256 x 256 matrices; bfloat16 must take less than 0.8 of float32's time.

    Args:
        device: "cpu", or a name such as "cuda:0".

    Returns:
        `torch.bfloat16` or `torch.float32`.
    """
    short, usual = (_fastest_s(dtype, device) for dtype in (torch.bfloat16, torch.float32))
    return torch.bfloat16 if short < WORTH * usual else torch.float32


def _fastest_s(dtype: torch.dtype, device: str) -> float:
    """Seconds of one product, excluding a warm-up round."""
    matrix = torch.ones(SIZE, SIZE, dtype=dtype, device=device)
    times = []
    for _ in range(1 + ROUNDS):
        start = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # synchronises with the device
        times.append(time.perf_counter() - start)
    return min(times[1:])


def lowered(network: Network, dtype: torch.dtype = torch.bfloat16) -> Network:
    """A copy whose linear maps and layer norms have weights of another dtype.

    Everything else is unchanged: batch norms, and constants such as action scales and rotation frequencies, which need
    full precision. A predictor casts its input to the dtype of its weights, and its output back to the input dtype; a
    residual output adds its low-precision change to the unmodified states.

    Args:
        network: The network to copy, such as a predictor.
        dtype: The dtype, `torch.bfloat16` by default.

    Raises:
        ValueError: If the dtype is not a floating-point type.
    """
    if not dtype.is_floating_point:
        raise ValueError(f"weights need a floating type such as torch.bfloat16, got {dtype}")
    lower = copy.deepcopy(network)
    for part in lower.modules():
        if isinstance(part, nn.Linear | nn.LayerNorm):
            part.to(dtype)
    return lower
