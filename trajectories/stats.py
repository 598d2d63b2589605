"""Statistics that normalise actions and proprioception."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import torch
from torch import Tensor

from jepa_mpc.trajectories.cache import canonical_sha256


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Mean, standard deviation and extremes of each axis, in the axis's own unit.

    Args:
        mean: Mean `A`.
        std: Standard deviation `A`; 1 for a constant axis, so that division changes nothing.
        low: Smallest value `A`.
        high: Largest value `A`.
    """

    mean: Annotated[Tensor, "A"]
    std: Annotated[Tensor, "A"]
    low: Annotated[Tensor, "A"]
    high: Annotated[Tensor, "A"]

    def normalise(self, x: Tensor) -> Tensor:
        """(x - mean) / std on the last axis."""
        return (x - self.mean) / self.std

    def restore(self, x: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return x * self.std + self.mean

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """The four vectors under `prefix.mean` and so on, for a checkpoint."""
        return {f"{prefix}.{name}": getattr(self, name) for name in ("mean", "std", "low", "high")}

    def to_dict(self) -> dict[str, Any]:
        """A JSON value for a checkpoint, with its own SHA-256; `stats_from` reads it."""
        numbers = {name: getattr(self, name).tolist() for name in ("mean", "std", "low", "high")}
        return numbers | {"sha256": canonical_sha256(numbers)}


class Rows(Protocol):
    """The source of statistics: a bank, or a mixture of banks."""

    def action_rows(self) -> Tensor:
        """All actions `G A`."""

    def proprio_rows(self) -> Tensor:
        """All proprioception `G P`."""


def stats_from(value: Mapping[str, Any]) -> Stats:
    """Read statistics that `Stats.to_dict` wrote.

    Raises:
        ValueError: If they do not match their checksum.
    """
    numbers = {name: value[name] for name in ("mean", "std", "low", "high")}
    if value.get("sha256") != canonical_sha256(numbers):
        raise ValueError("the statistics differ from their own checksum: take the checkpoint from its source again")
    return Stats(**{name: torch.tensor(numbers[name]) for name in numbers})


def stats_of(rows: Annotated[Tensor, "G A"], *, still: float = 1e-6) -> Stats:
    """Statistics over rows `G A`; an axis with a deviation below `still` counts as constant.

    Raises:
        ValueError: If there are fewer than two rows.
    """
    if rows.dim() == 2 and not rows.shape[1]:  # images or clouds alone
        return Stats(**{name: torch.zeros(0) for name in ("mean", "std", "low", "high")})
    if rows.dim() != 2 or rows.shape[0] < 2:
        raise ValueError(f"expected rows (G, A) with G >= 2, got shape {tuple(rows.shape)}")
    exact = rows.double()
    std = exact.std(dim=0)
    std = torch.where(std > still, std, torch.ones_like(std))
    return Stats(
        mean=exact.mean(dim=0).float(), std=std.float(), low=rows.amin(dim=0).float(), high=rows.amax(dim=0).float()
    )


def action_stats(bank: Rows) -> Stats:
    """Statistics of the actions in the bank's chosen episodes, without the empty last rows."""
    return stats_of(bank.action_rows())


def proprio_stats(bank: Rows) -> Stats:
    """Statistics of the proprioception in the bank's chosen episodes."""
    return stats_of(bank.proprio_rows())
