"""The network that a configuration describes, without its numbers: compared with a file before memory is spent on it.

Tensors are made on PyTorch's "meta" device, where they have a shape and no storage. What parts look at while they are
built (scales and ranges from the configuration) keeps its values.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules import module as registration
from torch.overrides import TorchFunctionMode

from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.world_model.checkpoints.assembly import assemble

FACTORIES = {
    *(torch.empty, torch.zeros, torch.ones, torch.full, torch.eye, torch.arange, torch.linspace, torch.logspace),
    *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.empty_strided, torch.hann_window),
    *(torch.tril_indices, torch.triu_indices),
}
LARGEST_TABLE = 64 * 2**20
"""Bytes of one tensor that is made while a network is built and not saved with it, such as a table of positions."""

SPARE_PARTS = 10_000
"""Parts and tensors that a network may have beyond those that a file can show."""


def blueprint(spec: Any, name: str, *, num_tensors: int, num_bytes: int) -> Any:
    """What `assemble` would build, with shapes and without numbers.

    Args:
        spec: The configuration.
        name: Where it comes from, for messages.
        num_tensors: In the file that the network shall be filled from.
        num_bytes: Of all these tensors.

    Raises:
        BadCheckpoint: As soon as the network grows far beyond what lies in the file.
        UnknownName, TypeError, ValueError: As `assemble`.
    """
    with _Blueprint(largest=num_bytes + LARGEST_TABLE, name=name), _at_most(16 * num_tensors + SPARE_PARTS, name):
        return assemble(spec)


class _Blueprint(TorchFunctionMode):
    """New tensors get a shape and no numbers; one that is far larger than the file is refused."""

    def __init__(self, *, largest: int, name: str) -> None:
        super().__init__()
        self.largest, self.name = largest, name

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func in FACTORIES and options.get("device") is None:
            options["device"] = "meta"
        made = func(*args, **options)
        if isinstance(made, Tensor) and made.is_meta and made.nbytes > self.largest:
            raise BadCheckpoint(
                f"{self.name} describes a network with a tensor of {made.nbytes / 1e9:.1f} GB, its weights allow at "
                f"most {self.largest / 1e9:.1f} GB: it is not the network of these weights"
            )
        return made


@contextmanager
def _at_most(count: int, name: str) -> Iterator[None]:
    """Refuse, in this thread, a network of more parts and tensors than a count."""
    thread, left = threading.get_ident(), count

    def registered(*_: Any) -> None:
        nonlocal left
        left -= threading.get_ident() == thread
        if left < 0:
            raise BadCheckpoint(f"{name} describes a network of more than {count} parts, its weights are far fewer")

    hooks = [
        registration.register_module_module_registration_hook(registered),
        registration.register_module_parameter_registration_hook(registered),
        registration.register_module_buffer_registration_hook(registered),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
