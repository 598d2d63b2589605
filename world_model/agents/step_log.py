"""What happened inside an agent during one step: for videos, reports and curious people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from jepa_mpc.types import Costs, Latents, PlanResult, State
from jepa_mpc.world_model.agents.configurator import AgentConfig


@dataclass(frozen=True, kw_only=True)
class StepLog:
    """One step of an agent, from the picture to the answer.

    Args:
        present: The state that was perceived `B N D`.
        plan: The last search, or None if every world has stood still so far.
        imagined: The future that the chosen plan was imagined to have `B H N D`, from the state it was made in.
        planned: Whether the search was made in this step (it is older while a plan is being carried out).
        present_cost: Goal cost of the present state `B`.
        held: Worlds that stand still because they have arrived `B` (bool).
        action: What was answered `B A`.
        seconds: Time per stage: "perceive", "judge", "plan" and "imagine"; an agent of more modules names more.
        thought: What the further modules had to say, or None in an agent without them.
    """

    present: State
    plan: PlanResult | None
    imagined: Latents | None
    planned: bool
    present_cost: Annotated[Tensor, "B"]
    held: Annotated[Tensor, "B"]
    action: Annotated[Tensor, "B A"]
    seconds: Mapping[str, float]
    thought: Thought | None = None

    @property
    def milliseconds(self) -> dict[str, float]:
        """Time per stage."""
        return {stage: 1000 * seconds for stage, seconds in self.seconds.items()}


@dataclass(frozen=True, kw_only=True)
class Thought:
    """What decided a step of an agent with two modes.

    Args:
        reactive: Worlds that acted by the policy (Mode-1) `B` (bool); the others planned (Mode-2).
        energy_before: Energy of going on with the last course of action `B`.
        energy_after: Energy of the course that was chosen `B`.
        terms: Weighted share of each cost term in `energy_after` `B`, by name.
        surprise: Squared distance per number between what was seen and what had been predicted `B`; NaN without a
            prediction.
        disagreement: How far the members of the ensemble are apart `B`; 0 without an ensemble.
        novelty: Distance of the present state from the nearest remembered one `B`; NaN without a memory.
        iterations: Rounds of the search of this step; 0 if there was none.
        evaluations: Candidate plans that were scored in this step, per world.
        config: What the configurator chose: every field of it.
        learned: What the critic learned in this step, by name; empty if it did not.
    """

    reactive: Annotated[Tensor, "B"]
    energy_before: Annotated[Tensor, "B"]
    energy_after: Annotated[Tensor, "B"]
    terms: Mapping[str, Costs]
    surprise: Annotated[Tensor, "B"]
    disagreement: Annotated[Tensor, "B"]
    novelty: Annotated[Tensor, "B"]
    iterations: int
    evaluations: int
    config: AgentConfig
    learned: Mapping[str, float]
