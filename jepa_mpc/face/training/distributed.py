"""Training in several processes started by `torchrun`, or in one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from jepa_mpc.errors import choose
from jepa_mpc.world_model.training.layouts import Alone, Copies, Layout, Pieces

LAYOUTS: dict[str, type[Copies] | type[Pieces]] = {"copies": Copies, "pieces": Pieces}
PATIENCE = timedelta(hours=2)  # while the first process evaluates or reads a log


@contextmanager
def joined(parallel: str, device: torch.device) -> Iterator[Layout]:
    """Join the process group, if there is one, for the duration of a block.

    Args:
        parallel: Name of `LAYOUTS`: layout of the weights over several processes.
        device: Where this process trains.

    Raises:
        UnknownName: If there is no such layout.
    """
    kind = choose(LAYOUTS, parallel, "parallel")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Alone()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield kind()
    finally:
        distributed.destroy_process_group()


@contextmanager
def first_alone() -> Iterator[bool]:
    """The first process runs the block before the others; yields whether this is the first."""
    many = distributed.is_available() and distributed.is_initialized()
    first = not many or distributed.get_rank() == 0
    if many and not first:
        distributed.barrier()
    yield first
    if many and first:
        distributed.barrier()


def device_of(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU if there is one, a different one for each local process.

    Raises:
        ValueError: If the device does not exist here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device={name} is unknown: use auto, cpu, cuda or cuda:1") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device={name} is not supported: use auto, cpu, cuda or cuda:1")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={name}: no usable GPU here; use device=cpu")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device
