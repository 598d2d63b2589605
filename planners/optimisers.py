"""Factories of optimisers for gradient planners."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


@dataclass(frozen=True, kw_only=True)
class Paces:
    """An optimiser that gives each start its own step size, since no single one suits every cost.

    Start s of S takes `slowest` ** (s / (S - 1)) of the optimiser's step: large steps leave shallow minima, small ones
    converge.

    Args:
        make: Makes the optimiser of parameters `B S ...`.
        slowest: Share of the step that the last start takes; the first one takes the full step.
    """

    make: Callable[[Iterable[Tensor]], Optimizer]
    slowest: float

    def __post_init__(self) -> None:
        if not 0 < self.slowest <= 1:
            raise ValueError(f"need 0 < slowest <= 1, got {self.slowest}")

    def __call__(self, parameters: Iterable[Tensor]) -> Optimizer:
        """An optimiser for these parameters."""
        optimiser = self.make(parameters)
        moving = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        paces = [self._paces(parameter) for parameter in moving]
        before: list[Tensor] = []

        def look(*_: Any) -> None:
            before[:] = [parameter.detach().clone() for parameter in moving]

        def shorten(*_: Any) -> None:
            with torch.no_grad():
                for parameter, old, pace in zip(moving, before, paces, strict=True):
                    parameter.copy_(torch.lerp(old, parameter, pace))

        optimiser.register_step_pre_hook(look)
        optimiser.register_step_post_hook(shorten)
        return optimiser

    def _paces(self, parameter: Tensor) -> Tensor:
        """Step share of each start, as a tensor that broadcasts over `parameter`."""
        count = parameter.shape[1]
        exponent = torch.linspace(0, 1, count, device=parameter.device, dtype=parameter.dtype)
        return (self.slowest**exponent).view(1, count, *[1] * (parameter.dim() - 2))
