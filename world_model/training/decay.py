"""Weight-decay rules: split the parameters of a module into optimiser groups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

NamedWeights = Iterable[tuple[str, nn.Parameter]]


class DecayRule(Protocol):
    """Splits parameters into optimiser groups by their weight decay."""

    def __call__(self, named: NamedWeights, weight_decay: float) -> list[dict[str, Any]]:
        """Groups with `params` and `weight_decay`."""


@dataclass(frozen=True)
class DecayAll:
    """Every weight decays."""

    def __call__(self, named: NamedWeights, weight_decay: float) -> list[dict[str, Any]]:
        """One group."""
        return [{"params": [weight for _, weight in named], "weight_decay": weight_decay}]


@dataclass(frozen=True)
class DecayMatrices:
    """Biases, norms and other vectors do not decay (V-JEPA 2, arXiv:2506.09985).

    Args:
        spared: Further weights without decay: those with one of these words in their dotted name.
    """

    spared: tuple[str, ...] = ("bias",)

    def __call__(self, named: NamedWeights, weight_decay: float) -> list[dict[str, Any]]:
        """A group of matrices and a group of the rest; empty groups are omitted."""
        weights = list(named)
        free = [weight for name, weight in weights if weight.dim() < 2 or set(name.split(".")) & set(self.spared)]
        names = {id(weight) for weight in free}
        pulled = [weight for _, weight in weights if id(weight) not in names]
        groups = [{"params": pulled, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]
