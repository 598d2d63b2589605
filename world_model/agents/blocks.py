"""Agents for world models that take several robot actions as one block."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from torch import Tensor

from jepa_mpc.actions import from_blocks
from jepa_mpc.step_log import StepLog
from jepa_mpc.types import ActionBox, Observation
from jepa_mpc.world_model.agents.planning import PlanningAgent


@dataclass(frozen=True, kw_only=True)
class BlockRobot:
    """The robot as a world model of action blocks sees it.

    Args:
        cameras: Names of the cameras.
        image_size: Width and height of the images (px).
        dt_s: Seconds per block.
        action_box: Bounds of one block, time-major.
        embodiment: Name of the robot, if it has one.
    """

    cameras: tuple[str, ...]
    image_size: int
    dt_s: float
    action_box: ActionBox
    embodiment: str = ""


class BlockAgent:
    """Plans in blocks of actions and executes each block action by action before the next observation is used.

    Args:
        agent: Plans blocks `B k A`, flattened time-major.
        steps: Actions k per block.
    """

    def __init__(self, agent: PlanningAgent, *, steps: int) -> None:
        self.agent, self.steps = agent, steps
        self._left: list[Tensor] = []
        self._last: StepLog | None = None

    @property
    def last(self) -> StepLog | None:
        """The log of the last step; its search is that of the block."""
        return self._last

    def limit(self, deadline_s: float) -> None:
        """See `PlanningAgent.limit`."""
        self.agent.limit(deadline_s)

    def reset(self, goal: Observation) -> None:
        """Begin an episode towards a goal."""
        self.agent.reset(goal)
        self._left, self._last = [], None

    def aim(self, goal: Observation) -> None:
        """Continue towards another goal; drops the rest of the current block."""
        self.agent.aim(goal)
        self._left = []

    def act(self, observation: Observation) -> Annotated[Tensor, "B A"]:
        """The next action; observations within a block are ignored.

        Raises:
            RuntimeError: If `reset` was not called.
            BadObservation: If the observation does not fit the perception.
        """
        fresh = not self._left
        if fresh:
            self._left = list(from_blocks(self.agent.act(observation)[:, None], self.steps).unbind(1))
        action = self._left.pop(0)
        assert self.agent.last is not None
        self._last = replace(self.agent.last, action=action, planned=fresh and self.agent.last.planned)
        return action
