"""Projection of drawn plans onto allowed ones before a sampling planner scores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from jepa_mpc.types import ActionBox, Plan, Plans


class Projection(Protocol):
    """Maps plans to allowed ones; its output always lies in the box."""

    def __call__(self, plans: Plans, box: ActionBox) -> Plans:
        """Drawn plans B S H A in; plans to score out."""

    def of_mean(self, plan: Plan, box: ActionBox) -> Plan:
        """The mean of the last Gaussian B H A in; the plan to return out."""


@dataclass(frozen=True)
class BoxProjection:
    """Clips plans to the box."""

    def __call__(self, plans: Plans, box: ActionBox) -> Plans:
        """Drawn plans B S H A in; plans in the box out."""
        return box.clip(plans)

    def of_mean(self, plan: Plan, box: ActionBox) -> Plan:
        """A plan B H A in; a plan in the box out."""
        return box.clip(plan)


@dataclass(frozen=True, kw_only=True)
class GripperProjection:
    """The gripper rules of V-JEPA 2-AC, then the box.

    Args:
        axis: Index of the gripper in an action; the action is a change of its closedness.
        limit: Largest change per step among the candidates.
        idle_below: Smaller changes in the returned mean are set to 0.
        close_from: Step of the plan from which the gripper closes fully, or None.

    Raises:
        ValueError: If `limit` or `idle_below` is negative or NaN; when called, if the box has no such axis.

    Reference: Assran et al. 2025, arXiv:2506.09985, section 3.3, and the authors' code.
    """

    axis: int
    limit: float = 0.75
    idle_below: float = 0.25
    close_from: int | None = None

    def __post_init__(self) -> None:
        if not (self.axis >= 0 and self.limit >= 0 and self.idle_below >= 0 and (self.close_from or 0) >= 0):
            raise ValueError(
                f"need axis, limit, idle_below and close_from >= 0, got {self.axis}, {self.limit}, {self.idle_below} "
                f"and {self.close_from}"
            )

    def __call__(self, plans: Plans, box: ActionBox) -> Plans:
        """Drawn plans B S H A in; plans that obey the rules and lie in the box out."""
        self._check(box)
        plans = plans.clone()
        plans[..., self.axis].clamp_(-self.limit, self.limit)
        if self.close_from is not None:
            plans[:, :, self.close_from :, self.axis] = box.high[self.axis].clamp(max=1.0)
        return box.clip(plans)

    def of_mean(self, plan: Plan, box: ActionBox) -> Plan:
        """A plan B H A in; the same plan without small gripper changes, clipped to the box, out."""
        self._check(box)
        plan = box.clip(plan)
        change = plan[..., self.axis]
        plan[..., self.axis] = torch.where(change.abs() < self.idle_below, 0.0, change)
        return box.clip(plan)

    def _check(self, box: ActionBox) -> None:
        if self.axis >= box.dim:
            raise ValueError(
                f"the gripper is axis {self.axis} of an action, and the robot's actions have {box.dim} numbers"
            )
