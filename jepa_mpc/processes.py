"""Communication between training processes: means, broadcasts, and the split of batches.

Training with several processes should match one process that sees the whole batch. Losses that are means over samples
need no care; statistics over a batch (SIGReg, variances, batch norms) are averaged here, with their gradient.
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
    """One of `count` equal parts of a batch.

    Raises:
        ValueError: If the index is out of range.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"need 0 <= index < count, got {self.index} and {self.count}")

    def rows(self, total: int) -> slice:
        """The rows of this part among `total`.

        Raises:
            ValueError: If `total` is not divisible.
        """
        if total % self.count:
            raise ValueError(
                f"a batch of {total} is not divisible by {self.count} (processes times accumulation steps): "
                f"choose a multiple of {self.count}"
            )
        size = total // self.count
        return slice(self.index * size, (self.index + 1) * size)


@runtime_checkable
class SharedBatches(Protocol):
    """A source of batches that can read the rows of one part only."""

    def part(self, generator: Generator, share: Share) -> Batch:
        """The rows of `share` of the batch that a full draw would give."""


def draw(batches: Any, stream: Generator, share: Share) -> Batch:
    """The rows of one part of the batch that the stream determines."""
    if share.count == 1:
        whole: Batch = batches(stream)
        return whole
    if isinstance(batches, SharedBatches):
        return batches.part(stream, share)
    return {name: value[share.rows(len(value))] for name, value in batches(stream).items()}


def num_processes() -> int:
    """Number of training processes; 1 inside `by_itself`."""
    if _BY_ITSELF.get() or not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


def process_index() -> int:
    """Rank of this process, from 0."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


@contextmanager
def by_itself() -> Iterator[None]:
    """Inside the block nothing waits for other processes (for an evaluation on one of them)."""
    token = _BY_ITSELF.set(True)
    try:
        yield
    finally:
        _BY_ITSELF.reset(token)


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, differentiable.

    Every process is assumed to apply the same function to the result. The gradient at `value` is that of the sum of
    these equal costs; averaging gradients over processes turns it into the gradient of one.
    """
    count = num_processes()
    return value if count == 1 else _Sum.apply(value) / count


def same_everywhere(value: Tensor) -> Tensor:
    """Broadcast the first process's tensor to all (in place)."""
    if num_processes() > 1:
        distributed.broadcast(value, src=0)
    return value


def averaged(numbers: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Metrics averaged over the processes; all must have the same names."""
    if num_processes() == 1 or not numbers:
        return dict(numbers)
    joined = torch.stack([value.detach().to(device, torch.float64) for value in numbers.values()])
    distributed.all_reduce(joined)
    return dict(zip(numbers, (joined / num_processes()).unbind(), strict=True))


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process."""
    if num_processes() == 1:
        return flag
    raised = torch.tensor([float(flag)], device=device)
    distributed.all_reduce(raised, op=distributed.ReduceOp.MAX)
    return bool(raised)


class _Sum(torch.autograd.Function):
    """Sum over processes; gradients are summed as well."""

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
