"""Predictors with short numbers: half the memory, and faster where the processor knows them."""

from __future__ import annotations

import copy
import time
from functools import cache
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)

SIZE, ROUNDS = 256, 5
WORTH = 0.8  # of the time: sixteen bits that gain less are not worth their digits


@cache
def fast_dtype(device: str = "cpu") -> torch.dtype:
    """The number format in which this machine multiplies faster, measured once per process and device.

    Processors without instructions for bfloat16 emulate it, several times slower than float32. Measured is a product of
    two matrices of 256 x 256, the fastest of five; bfloat16 has to take less than 0.8 of float32's time.

    Args:
        device: "cpu", or a name such as "cuda:0".

    Returns:
        `torch.bfloat16` or `torch.float32`.
    """
    short, usual = (_fastest_s(dtype, device) for dtype in (torch.bfloat16, torch.float32))
    return torch.bfloat16 if short < WORTH * usual else torch.float32


def _fastest_s(dtype: torch.dtype, device: str) -> float:
    """Seconds of one product; the first round, which warms up, does not count."""
    matrix = torch.ones(SIZE, SIZE, dtype=dtype, device=device)
    times = []
    for _ in range(1 + ROUNDS):
        start = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # waits for the device
        times.append(time.perf_counter() - start)
    return min(times[1:])


def lowered(network: Network, dtype: torch.dtype = torch.bfloat16) -> Network:
    """A copy whose linear maps and layer norms have weights of another type.

    All else stays as it is: norms over batches, and constants such as action scales and rotation frequencies, which
    would lose digits that matter. A predictor brings what comes in to the type of its weights, and gives back the type
    that came in; a residual output adds its short changes to the states as they came.

    Args:
        network: What to copy, a predictor say.
        dtype: The type, `torch.bfloat16` by default.

    Raises:
        ValueError: If the type is not a floating one.
    """
    if not dtype.is_floating_point:
        raise ValueError(f"weights need a floating type such as torch.bfloat16, got {dtype}")
    lower = copy.deepcopy(network)
    for part in lower.modules():
        if isinstance(part, nn.Linear | nn.LayerNorm):
            part.to(dtype)
    return lower
