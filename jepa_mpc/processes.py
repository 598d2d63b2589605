"""What processes that train together tell each other: means, one process's numbers, and who does which rows.

A training of several processes is to give the numbers of one that sees the whole batch. Losses that are means over
samples need no help; statistics over a batch (SIGReg, variances, batch norms) are averaged here, with their gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor, distributed

from jepa_mpc.interfaces import Batch

_BY_ITSELF: ContextVar[bool] = ContextVar("by_itself", default=False)


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which of `count` equal parts of a batch this is.

    Raises:
        ValueError: If there is no such part.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"need 0 <= index < count, got {self.index} and {self.count}")

    def rows(self, total: int) -> slice:
        """The rows of this part among `total`.

        Raises:
            ValueError: If the rows cannot be shared out evenly.
        """
        if total % self.count:
            raise ValueError(
                f"a batch of {total} cannot be shared out evenly to {self.count} (processes times accumulation steps): "
                f"choose a multiple of {self.count}"
            )
        size = total // self.count
        return slice(self.index * size, (self.index + 1) * size)


@runtime_checkable
class SharedBatches(Protocol):
    """A source of batches that can read the rows of one part alone."""

    def part(self, generator: Generator, share: Share) -> Batch:
        """The rows of `share` of the batch that the whole draw would give."""


def draw(batches: Any, stream: Generator, share: Share) -> Batch:
    """The rows of one part of the one batch that the stream stands for."""
    if share.count == 1:
        whole: Batch = batches(stream)
        return whole
    if isinstance(batches, SharedBatches):
        return batches.part(stream, share)
    return {name: value[share.rows(len(value))] for name, value in batches(stream).items()}


def num_processes() -> int:
    """Processes that train together; 1 inside `by_itself`."""
    if _BY_ITSELF.get() or not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


def process_index() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


@contextmanager
def by_itself() -> Iterator[None]:
    """Nothing inside the block waits for other processes (an evaluation that one of them does)."""
    token = _BY_ITSELF.set(True)
    try:
        yield
    finally:
        _BY_ITSELF.reset(token)


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, differentiable.

    Every process is taken to go on with the same function of the result; the gradient that reaches `value` is that of
    the sum of these equal costs, which the averaging of gradients over processes turns into the gradient of one.
    """
    count = num_processes()
    return value if count == 1 else _Sum.apply(value) / count


def same_everywhere(value: Tensor) -> Tensor:
    """The first process's tensor, on all of them (in place)."""
    if num_processes() > 1:
        distributed.broadcast(value, src=0)
    return value


def averaged(numbers: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Numbers to log as means over the processes, which all have the same names."""
    if num_processes() == 1 or not numbers:
        return dict(numbers)
    joined = torch.stack([value.detach().to(device, torch.float64) for value in numbers.values()])
    distributed.all_reduce(joined)
    return dict(zip(numbers, (joined / num_processes()).unbind(), strict=True))


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is up in any process."""
    if num_processes() == 1:
        return flag
    raised = torch.tensor([float(flag)], device=device)
    distributed.all_reduce(raised, op=distributed.ReduceOp.MAX)
    return bool(raised)


class _Sum(torch.autograd.Function):
    """Sum over processes; the gradients are summed likewise."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.detach().clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        total = slopes[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total
