"""Log of one agent step, for videos, reports and debugging."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from torch import Tensor

from jepa_mpc.types import Goal, Latents, PlanResult, State


@dataclass(frozen=True, kw_only=True)
class StepLog:
    """One step of an agent, from perception to action. Agents that do not plan leave most fields None.

    Args:
        action: The chosen action `B A`.
        held: Worlds that hold still because the goal is reached `B` (bool), or None.
        present: The perceived state `B N D`, or None.
        goal: The goal estimate of this step, or None.
        plan: The last search, or None if every world has held still so far.
        imagined: The predicted future of the chosen plan `B H N D`, from the state in which it was made.
        planned: Whether the search ran in this step (it is older while a plan is being executed).
        present_cost: Cost of the current state `B`, in the cost's own unit, or None.
        position: Estimated hand position `B 3` (m), in the frame of the position head, or None without one.
        path: Predicted path of the plan `B H 3` (m), in the same frame, or None.
        goal_distance: Estimated distance to the goal `B` (m), or None.
        seconds: Time per stage: "perceive", "judge", "plan", "imagine" ...
    """

    action: Annotated[Tensor, "B A"]
    held: Annotated[Tensor, "B"] | None = None
    present: State | None = None
    goal: Goal | None = None
    plan: PlanResult | None = None
    imagined: Latents | None = None
    planned: bool = False
    present_cost: Annotated[Tensor, "B"] | None = None
    position: Annotated[Tensor, "B 3"] | None = None
    path: Annotated[Tensor, "B H 3"] | None = None
    goal_distance: Annotated[Tensor, "B"] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def milliseconds(self) -> dict[str, float]:
        """Time per stage (ms)."""
        return {stage: 1000 * seconds for stage, seconds in self.seconds.items()}

    @property
    def status(self) -> str:
        """Status of the last search in the first world, "hold" if it holds still, "" without a search."""
        if self.held is not None and bool(self.held.all()):
            return "hold"
        return "" if self.plan is None else self.plan.status[0].value
