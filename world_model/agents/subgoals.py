"""A task as a sequence of goal images, each for a number of steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

from torch import Tensor

from jepa_mpc.types import Observation


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One goal image and its number of steps.

    Args:
        goal: The goal image.
        steps: Control steps until the next stage begins; the last stage has no end.

    Raises:
        ValueError: If `steps` is less than 1.
    """

    goal: Observation
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"a stage needs steps >= 1, got {self.steps}")


class Aiming(Protocol):
    """An agent whose goal can change during an episode, such as `world_model.agents.planning.PlanningAgent`."""

    def reset(self, goal: Observation) -> None:
        """Begin an episode."""

    def aim(self, goal: Observation) -> None:
        """Continue towards another goal."""

    def act(self, observation: Observation) -> Annotated[Tensor, "B A"]:
        """Choose the next action."""


class SubGoals:
    """Acts through the stages of a task that needs more than one goal image.

    Pick and place, for example: 4 steps towards the grasp, 10 towards the target, 4 towards the release.

    Args:
        agent: The acting agent.
        stages: The goal images in order, with the steps of each.

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
        """Restart the task."""
        self.stage, self._left = 0, self.stages[0].steps
        self.agent.reset(self.stages[0].goal)

    @property
    def last(self) -> bool:
        """Whether the last stage has begun."""
        return self.stage == len(self.stages) - 1

    def act(self, observation: Observation) -> Annotated[Tensor, "B A"]:
        """Choose the next action `B A`; the next stage begins when the current one's steps are spent."""
        if self._left == 0 and not self.last:
            self.stage += 1
            self._left = self.stages[self.stage].steps
            self.agent.aim(self.stages[self.stage].goal)
        self._left = max(0, self._left - 1)
        return self.agent.act(observation)
