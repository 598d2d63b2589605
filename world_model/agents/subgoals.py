"""A task as a row of pictures: each is the goal for some steps, then the next one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

from torch import Tensor

from jepa_mpc.types import Observation


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One picture to reach and the steps that it may take.

    Args:
        goal: The picture.
        steps: Control steps until the next stage begins; the last stage lasts as long as it is asked.

    Raises:
        ValueError: If there is not a single step.
    """

    goal: Observation
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"a stage needs steps >= 1, got {self.steps}")


class Aiming(Protocol):
    """An agent whose goal can change under way: `world_model.agents.planning.Agent` is one."""

    def reset(self, goal: Observation) -> None:
        """Begin an episode."""

    def aim(self, goal: Observation) -> None:
        """Go on towards another goal."""

    def act(self, observation: Observation) -> Annotated[Tensor, "B A"]:
        """Choose the next action."""


class SubGoals:
    """Acts through the stages of a task, for which one goal picture would say too little.

    Picking and placing, say: 4 steps towards the grasp, 10 towards the place, 4 towards the release.

    Args:
        agent: Does the acting.
        stages: The pictures, in order, with the steps of each.

    Raises:
        ValueError: If there is no stage.

    Reference: Assran et al. 2025, arXiv:2506.09985, section 4.
    """

    def __init__(self, agent: Aiming, stages: Sequence[Stage]) -> None:
        if not stages:
            raise ValueError("a task needs at least one stage")
        self.agent, self.stages = agent, tuple(stages)
        self.stage = self._left = 0
        self.reset()

    def reset(self) -> None:
        """Begin the task anew."""
        self.stage, self._left = 0, self.stages[0].steps
        self.agent.reset(self.stages[0].goal)

    @property
    def last(self) -> bool:
        """Whether the last stage has begun."""
        return self.stage == len(self.stages) - 1

    def act(self, observation: Observation) -> Annotated[Tensor, "B A"]:
        """Choose the next action `B A`; the next stage begins when the present one's steps are spent."""
        if self._left == 0 and not self.last:
            self.stage += 1
            self._left = self.stages[self.stage].steps
            self.agent.aim(self.stages[self.stage].goal)
        self._left = max(0, self._left - 1)
        return self.agent.act(observation)
