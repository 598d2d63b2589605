"""Weight layouts of a training: one process, a copy per process (DDP), or shards (FSDP2)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from jepa_mpc.encoders.layers.blocks import TransformerBlock
from jepa_mpc.processes import num_processes
from jepa_mpc.world_model.training.norms import share_norms

_OWN_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in signature(DistributedDataParallel).parameters
    else "broadcast_buffers": False
}  # fmt: skip
"""Synchronised batch norms keep buffers equal; newer PyTorch releases spell the option differently."""


class Layout(Protocol):
    """Distributes an objective over the processes and gathers its state."""

    fused: bool

    def spread(self, objective: nn.Module) -> nn.Module:
        """Prepare an objective in place, on its device; returns the module that computes the loss."""

    def unfinished(self, loss_of: nn.Module) -> AbstractContextManager[Any]:
        """Inside the block gradients are not synchronised: more batches of the same step follow."""

    def whole(self, objective: nn.Module) -> AbstractContextManager[nn.Module]:
        """The complete objective, for an evaluation by the first process."""


class Alone:
    """One process."""

    fused = True

    def spread(self, objective: nn.Module) -> nn.Module:
        """Nothing to do."""
        return objective

    def unfinished(self, loss_of: nn.Module) -> AbstractContextManager[Any]:
        """Nothing to do."""
        return nullcontext()

    def whole(self, objective: nn.Module) -> AbstractContextManager[nn.Module]:
        """The objective itself."""
        return nullcontext(objective)


class Copies:
    """A copy of all weights in each process; gradients are averaged during the backward pass (DDP)."""

    fused = True

    def spread(self, objective: nn.Module) -> nn.Module:
        """Synchronise batch norms and gradients over all processes."""
        share_norms(objective)
        return DistributedDataParallel(objective, **_OWN_BUFFERS)

    def unfinished(self, loss_of: nn.Module) -> AbstractContextManager[Any]:
        """Do not average gradients yet."""
        assert isinstance(loss_of, DistributedDataParallel)
        return loss_of.no_sync()

    def whole(self, objective: nn.Module) -> AbstractContextManager[nn.Module]:
        """The local copy."""
        return nullcontext(objective)


class Pieces:
    """A shard of each weight in each process, gathered when needed (FSDP2).

    The Transformer blocks of encoders are gathered one at a time; all other weights for the duration of a step.
    """

    fused = False

    def __init__(self) -> None:
        self.mirror: nn.Module | None = None

    def spread(self, objective: nn.Module) -> nn.Module:
        """Shard all weights."""
        share_norms(objective)
        self.mirror = copy.deepcopy(objective)
        device = next(objective.parameters()).device
        mesh = init_device_mesh(device.type, (num_processes(),))
        for name, part in objective.named_modules():
            if isinstance(part, TransformerBlock) and "encoder" in name.split("."):
                fully_shard(part, mesh=mesh)
        fully_shard(objective, mesh=mesh)
        return objective

    @contextmanager
    def unfinished(self, loss_of: nn.Module) -> Iterator[None]:
        """Do not synchronise gradients yet."""
        assert isinstance(loss_of, FSDPModule)
        loss_of.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            loss_of.set_requires_gradient_sync(True)

    @contextmanager
    def whole(self, objective: nn.Module) -> Iterator[nn.Module]:
        """A complete copy with the current weights; all processes must enter."""
        assert self.mirror is not None
        self.mirror.load_state_dict(gathered(objective.state_dict()))
        yield self.mirror


def gathered(state: Any) -> Any:
    """A nested state with gathered shards; all processes must call."""
    match state:
        case DTensor():
            return state.full_tensor()
        case Mapping():
            return {key: gathered(value) for key, value in state.items()}
        case list() | tuple():
            return type(state)(gathered(value) for value in state)
    return state


def spread_like(whole: Tensor, model: Tensor) -> Tensor:
    """Shard a tensor as `model` is sharded, if it is; every process has the whole one."""
    if not isinstance(model, DTensor):
        return whole
    return distribute_tensor(whole.to(model.device), model.device_mesh, model.placements, src_data_rank=None)


def local(tensor: Tensor) -> Tensor:
    """The local shard of a tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def compile_blocks(objective: nn.Module, mode: str) -> None:
    """Compile the repeated blocks of a network one by one, which takes seconds instead of minutes.

    Args:
        objective: Compiled in place.
        mode: Mode of `torch.compile`: "default", "reduce-overhead" or "max-autotune".
    """
    for part in objective.modules():
        if isinstance(part, nn.ModuleList):
            for block in part:
                block.compile(mode=mode)


def settle(device: torch.device) -> None:
    """Make a GPU the current one of its process."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
