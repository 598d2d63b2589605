"""Arbitration between the two modes: the policy (Mode-1) acts while predictions hold, otherwise the planner (Mode-2).

    reactive wanted  =  surprise < th1  and  disagreement < th2  and  E(policy) <= E(last plan) + margin |E(last plan)|

A world switches its mode when the other one was preferred `patience` times in a row.
Reference: LeCun 2022, A path towards autonomous machine intelligence, section 3.1 (Mode-1 and Mode-2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Evidence for the choice of mode, per world `B`; NaN where unknown.

    Args:
        surprise: Mean squared difference between the perceived and the predicted state.
        disagreement: Disagreement of the ensemble members.
        policy_energy: Energy of the policy's plan.
        plan_energy: Energy of continuing the last plan.
    """

    surprise: Annotated[Tensor, "B"]
    disagreement: Annotated[Tensor, "B"]
    policy_energy: Annotated[Tensor, "B"]
    plan_energy: Annotated[Tensor, "B"]


@dataclass(frozen=True)
class Modes:
    """The mode of each world: `reactive` `B` (bool), and for how many steps the other one was preferred `B`."""

    reactive: Annotated[Tensor, "B"]
    streak: Annotated[Tensor, "B"]

    @classmethod
    def planning(cls, batch: int, device: torch.device | str = "cpu") -> Modes:
        """All worlds in Mode-2, the initial state of an episode."""
        none = torch.zeros(batch, dtype=torch.int64, device=device)
        return cls(none.bool(), none)


@dataclass(frozen=True, kw_only=True)
class Arbitration:
    """Decides between the modes, with hysteresis.

    Args:
        surprise_below: th1, in the squared unit of the latents.
        disagreement_below: th2, in the unit of the disagreement.
        margin: Allowed excess of the policy's energy over the last plan's, as a share of the latter.
        patience: Consecutive steps that the other mode must be preferred.

    Raises:
        ValueError: If a number is out of range.
    """

    surprise_below: float
    disagreement_below: float = math.inf
    margin: float = 0.1
    patience: int = 2

    def __post_init__(self) -> None:
        if not self.surprise_below > 0 or not self.disagreement_below > 0 or self.margin < 0 or self.patience < 1:
            raise ValueError(
                "need surprise_below, disagreement_below above 0, margin from 0 and patience from 1, got "
                f"{self.surprise_below}, {self.disagreement_below}, {self.margin} and {self.patience}"
            )

    def wanted(self, evidence: Evidence) -> Annotated[Tensor, "B"]:
        """Mask of the worlds where the evidence favours Mode-1 `B` (bool); unknown evidence never does."""
        calm = evidence.surprise < self.surprise_below
        agreed = evidence.disagreement < self.disagreement_below
        allowed = evidence.plan_energy + self.margin * evidence.plan_energy.abs()
        return calm & agreed & (evidence.policy_energy <= allowed)

    def step(self, modes: Modes, evidence: Evidence) -> Modes:
        """The modes after a new piece of evidence."""
        other = self.wanted(evidence) != modes.reactive
        streak = torch.where(other, modes.streak + 1, 0)
        changes = streak >= self.patience
        return Modes(modes.reactive ^ changes, torch.where(changes, 0, streak))
