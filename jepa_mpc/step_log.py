"""What happened inside an agent during one step: for films, reports and curious people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from torch import Tensor

from jepa_mpc.types import Goal, Latents, PlanResult, State


@dataclass(frozen=True, kw_only=True)
class StepLog:
    """One step of an agent, from the picture to the answer. An agent that does not plan leaves most of it out.

    Args:
        action: What was answered `B A`.
        held: Worlds that stand still because they have arrived `B` (bool), or None.
        present: The state that was perceived `B N D`, or None.
        goal: The goal as it was known in this step, or None.
        plan: The last search, or None if every world has stood still so far.
        imagined: The future that the chosen plan was imagined to have `B H N D`, from the state it was made in.
        planned: Whether the search was made in this step (it is older while a plan is being carried out).
        present_cost: Cost of the present state `B`, in the cost's own unit, or None.
        position: Estimated position of the hand `B 3` (m), in the frame of the position head, or None without one.
        path: Where the plan is imagined to lead `B H 3` (m), in the same frame, or None.
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
        """Time per stage."""
        return {stage: 1000 * seconds for stage, seconds in self.seconds.items()}

    @property
    def status(self) -> str:
        """How the last search of the first world ended, "hold" if it stands still, "" without a search."""
        if self.held is not None and bool(self.held.all()):
            return "hold"
        return "" if self.plan is None else self.plan.status[0].value
