"""The network of a configuration without its values, compared with a file before memory is allocated.

Tensors are created on PyTorch's "meta" device, where they have a shape and no storage. Values that parts read during
construction (scales and ranges from the configuration) are kept.
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
"""Size in bytes of a tensor created during construction and not saved, such as a table of positional embeddings."""

SPARE_PARTS = 10_000
"""Number of parts and tensors beyond those in the file."""


def blueprint(spec: Any, name: str, *, num_tensors: int, num_bytes: int) -> Any:
    """What `assemble` would build, with shapes and without values.

    Args:
        spec: The configuration.
        name: Location of the configuration, for messages.
        num_tensors: Number of tensors in the file.
        num_bytes: Total size of these tensors.

    Raises:
        BadCheckpoint: As soon as the network grows far beyond the content of the file.
        UnknownName, TypeError, ValueError: As `assemble`.
    """
    with _Blueprint(largest=num_bytes + LARGEST_TABLE, name=name), _at_most(16 * num_tensors + SPARE_PARTS, name):
        return assemble(spec)


class _Blueprint(TorchFunctionMode):
    """Gives new tensors a shape and no values; refuses one that is far larger than the file."""

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
    """Refuse, in this thread, a network with more parts and tensors than `count`."""
    thread, left = threading.get_ident(), count

    def registered(*_: Any) -> None:
        nonlocal left
        left -= threading.get_ident() == thread
        if left < 0:
            raise BadCheckpoint(f"{name} describes a network of more than {count} parts, far more than its weights")

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
