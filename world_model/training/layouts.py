"""Where the weights of a training lie: in one process, a copy in each (DDP), or a piece in each (FSDP2)."""

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
"""Shared batch norms keep buffers equal; newer releases of PyTorch spell the option differently."""


class Layout(Protocol):
    """Spreads an objective over the processes and gathers its state again."""

    fused: bool

    def spread(self, objective: nn.Module) -> nn.Module:
        """Prepare an objective in place, on its device; the answer computes the loss."""

    def unfinished(self, loss_of: nn.Module) -> AbstractContextManager[Any]:
        """Gradients of the block stay in their process: more of the same step follow."""

    def whole(self, objective: nn.Module) -> AbstractContextManager[nn.Module]:
        """The objective in one piece, for an evaluation by the first process."""


class Alone:
    """One process."""

    fused = True

    def spread(self, objective: nn.Module) -> nn.Module:
        """Nothing to do."""
        return objective

    def unfinished(self, loss_of: nn.Module) -> AbstractContextManager[Any]:
        """Nothing is sent anyway."""
        return nullcontext()

    def whole(self, objective: nn.Module) -> AbstractContextManager[nn.Module]:
        """It is in one piece."""
        return nullcontext(objective)


class Copies:
    """A copy of all weights in each process; gradients are averaged while they are computed (DDP)."""

    fused = True

    def spread(self, objective: nn.Module) -> nn.Module:
        """Let batch norms see all processes, and gradients be averaged."""
        share_norms(objective)
        return DistributedDataParallel(objective, **_OWN_BUFFERS)

    def unfinished(self, loss_of: nn.Module) -> AbstractContextManager[Any]:
        """Average nothing yet."""
        assert isinstance(loss_of, DistributedDataParallel)
        return loss_of.no_sync()

    def whole(self, objective: nn.Module) -> AbstractContextManager[nn.Module]:
        """Each copy is in one piece."""
        return nullcontext(objective)


class Pieces:
    """A piece of each weight in each process, joined for the time that it is needed (FSDP2).

    The Transformer blocks of encoders are joined one at a time; all other weights for the length of a step.
    """

    fused = False

    def __init__(self) -> None:
        self.mirror: nn.Module | None = None

    def spread(self, objective: nn.Module) -> nn.Module:
        """Cut all weights into pieces."""
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
        """Send no gradients yet."""
        assert isinstance(loss_of, FSDPModule)
        loss_of.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            loss_of.set_requires_gradient_sync(True)

    @contextmanager
    def whole(self, objective: nn.Module) -> Iterator[nn.Module]:
        """A copy in one piece with the present weights; to be entered by all processes."""
        assert self.mirror is not None
        self.mirror.load_state_dict(gathered(objective.state_dict()))
        yield self.mirror


def gathered(state: Any) -> Any:
    """A nested state with pieces joined; to be called by all processes."""
    match state:
        case DTensor():
            return state.full_tensor()
        case Mapping():
            return {key: gathered(value) for key, value in state.items()}
        case list() | tuple():
            return type(state)(gathered(value) for value in state)
    return state


def spread_like(whole: Tensor, model: Tensor) -> Tensor:
    """A tensor cut into pieces as `model` is, if it is; every process has the whole one."""
    if not isinstance(model, DTensor):
        return whole
    return distribute_tensor(whole.to(model.device), model.device_mesh, model.placements, src_data_rank=None)


def local(tensor: Tensor) -> Tensor:
    """The piece of a tensor that lies in this process, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def compile_blocks(objective: nn.Module, mode: str) -> None:
    """Compile the repeated blocks of a network one by one, which takes seconds and not minutes.

    Args:
        objective: Compiled in place.
        mode: Of `torch.compile`: "default", "reduce-overhead" or "max-autotune".
    """
    for part in objective.modules():
        if isinstance(part, nn.ModuleList):
            for block in part:
                block.compile(mode=mode)


def settle(device: torch.device) -> None:
    """Make a GPU the present one of its process."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
