"""An exponential moving average of weights, for evaluation and publication."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from jepa_mpc.world_model.training.layouts import local


class WeightAverage:
    """Exponential moving average of the floating-point weights and buffers of a module; other buffers are copied.

        average = d_k average + (1 - d_k) weights,   d_k = min(d, (1 + k) / (10 + k)) after k updates

    The small d_k of the first steps quickly forgets the initial weights.

    Args:
        module: The module to average.
        decay: d, between 0 and 1.
    """

    def __init__(self, module: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        device = next(iter(self.tensors.values())).device if self.tensors else None
        self.tensors["num_updates"] = torch.zeros((), dtype=torch.int64, device=device)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take one step towards the module's current weights."""
        now = module.state_dict()
        names = [name for name, tensor in now.items() if tensor.is_floating_point()]
        count = self.tensors["num_updates"]
        keep = torch.clamp((1 + count) / (10 + count), max=self.decay)
        for name in names:
            local(self.tensors[name]).lerp_(local(now[name]), (1 - keep).to(now[name].dtype))
        for name in now.keys() - set(names):
            self.tensors[name].copy_(now[name])
        count.add_(1)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore saved averages.

        Raises:
            ValueError: If the names differ.
        """
        if tensors.keys() != self.tensors.keys():
            raise ValueError(f"the saved average has other weights: {sorted(tensors.keys() ^ self.tensors.keys())[:5]}")
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)

    def weights(self) -> dict[str, Tensor]:
        """The averaged weights under the module's own names."""
        return {name: tensor for name, tensor in self.tensors.items() if name != "num_updates"}

    @contextmanager
    def in_place_of(self, module: nn.Module) -> Iterator[None]:
        """Give the module the averaged weights for the duration of a block."""
        own = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        module.load_state_dict(self.weights())
        try:
            yield
        finally:
            module.load_state_dict(own)
