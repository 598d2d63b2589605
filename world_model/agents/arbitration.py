"""Which of the two modes acts: the policy (Mode-1) where nothing surprises, the planner (Mode-2) otherwise.

    reactive wanted  =  surprise < th1  and  disagreement < th2  and  E(policy) <= E(last plan) + margin |E(last plan)|

A world changes its mode when the other one was wanted `patience` times in a row.
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
    """What speaks for one mode or the other, of each world `B`; NaN where it is not known.

    Args:
        surprise: Squared distance per number between what was seen and what had been predicted.
        disagreement: How far the members of the ensemble are apart.
        policy_energy: Energy of the policy's answer.
        plan_energy: Energy of going on with the last course of action.
    """

    surprise: Annotated[Tensor, "B"]
    disagreement: Annotated[Tensor, "B"]
    policy_energy: Annotated[Tensor, "B"]
    plan_energy: Annotated[Tensor, "B"]


@dataclass(frozen=True)
class Modes:
    """The mode of each world: `reactive` `B` (bool), and for how many steps the other one has been wanted `B`."""

    reactive: Annotated[Tensor, "B"]
    streak: Annotated[Tensor, "B"]

    @classmethod
    def planning(cls, batch: int, device: torch.device | str = "cpu") -> Modes:
        """All worlds in Mode-2, as an episode begins."""
        none = torch.zeros(batch, dtype=torch.int64, device=device)
        return cls(none.bool(), none)


@dataclass(frozen=True, kw_only=True)
class Arbitration:
    """Decides between the modes, with hysteresis.

    Args:
        surprise_below: th1, in the squared unit of the latents.
        disagreement_below: th2, in the unit of the disagreement.
        margin: How much worse than the last plan the policy may be, as a share of that plan's energy.
        patience: Times in a row that the other mode must be wanted.

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
        """Whether the evidence speaks for Mode-1 `B` (bool); what is not known never does."""
        calm = evidence.surprise < self.surprise_below
        agreed = evidence.disagreement < self.disagreement_below
        allowed = evidence.plan_energy + self.margin * evidence.plan_energy.abs()
        return calm & agreed & (evidence.policy_energy <= allowed)

    def step(self, modes: Modes, evidence: Evidence) -> Modes:
        """The modes after one more piece of evidence."""
        other = self.wanted(evidence) != modes.reactive
        streak = torch.where(other, modes.streak + 1, 0)
        changes = streak >= self.patience
        return Modes(modes.reactive ^ changes, torch.where(changes, 0, streak))
