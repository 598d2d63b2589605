"""Statistics with which actions and proprioception are brought to unit scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from trajectories.bank import FrameBank


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Mean, standard deviation and extremes of each axis, in the axis's own unit.

    Args:
        mean: Mean `A`.
        std: Standard deviation `A`; 1 where an axis does not move, so that division changes nothing.
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


def stats_of(rows: Annotated[Tensor, "G A"], *, still: float = 1e-6) -> Stats:
    """Statistics over rows `G A`; an axis whose deviation is below `still` counts as not moving.

    Raises:
        ValueError: If there are fewer than two rows.
    """
    if rows.dim() != 2 or rows.shape[0] < 2:
        raise ValueError(f"expected rows (G, A) with G >= 2, got shape {tuple(rows.shape)}")
    exact = rows.double()
    std = exact.std(dim=0)
    std = torch.where(std > still, std, torch.ones_like(std))
    return Stats(
        mean=exact.mean(dim=0).float(), std=std.float(), low=rows.amin(dim=0).float(), high=rows.amax(dim=0).float()
    )


def action_stats(bank: FrameBank) -> Stats:
    """Statistics of the actions in the bank's chosen episodes, the empty last rows left out."""
    return stats_of(bank.actions[_steps(bank, leave_out=1)])


def proprio_stats(bank: FrameBank) -> Stats:
    """Statistics of the proprioception in the bank's chosen episodes."""
    return stats_of(bank.proprio[_steps(bank, leave_out=0)])


def _steps(bank: FrameBank, leave_out: int) -> Tensor:
    """Row numbers of the chosen episodes without their last `leave_out` steps."""
    chosen = torch.zeros(len(bank.actions), dtype=torch.bool)
    for episode in bank.episodes.tolist():
        chosen[int(bank.offsets[episode]) : int(bank.offsets[episode + 1]) - leave_out] = True
    return chosen.nonzero().flatten().to(bank.actions.device)
