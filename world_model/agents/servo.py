"""Visual servoing: a control that isolates the contribution of planning and prediction.

a = gain (x_goal - x), along the straight line, within the box
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.interfaces import GoalReader, Perception
from jepa_mpc.step_log import StepLog
from jepa_mpc.types import ActionBox, Goal, Observation
from jepa_mpc.world_model.agents.planning import believed, check_state

GAIN = 0.6


class ServoAgent:
    """Moves by a share of the distance to the goal position; it predicts nothing and searches for nothing.

    Perception and goal are those of a planning agent, so the difference between the two is due to planner and
    predictor. For B worlds in parallel.

    Args:
        perception: Frames to latents.
        goals: Reads the goal; uses its position, or what the position head reads from its latents.
        position_head: Maps latents to positions (m).
        box: The actions that the robot accepts; observations are moved to its device.
        step: Indices of the three action axes that move the hand (m).
        gain: Share of the distance per step.

    Raises:
        ValueError: If the gain is not in (0, 1].
    """

    def __init__(
        self,
        *,
        perception: Perception,
        goals: GoalReader,
        position_head: Callable[[Tensor], Tensor],
        box: ActionBox,
        step: slice = slice(0, 3),
        gain: float = GAIN,
    ) -> None:
        if not 0 < gain <= 1:
            raise ValueError(f"gain must be in (0, 1], got {gain}")
        self.perception, self.goals, self.position_head = perception, goals, position_head
        self.box, self.step, self.gain = box, step, gain
        self.last: StepLog | None = None
        self._goal: Goal | None = None

    def reset(self, goal: Observation) -> None:
        """Begin an episode: read the goal."""
        self._goal, self.last = self.goals.reset(goal.to(self.box.low.device)), None

    @torch.no_grad()
    def act(self, observation: Observation) -> Annotated[Tensor, "B A"]:
        """The next action `B A`: physical units, inside the box.

        Raises:
            RuntimeError: If `reset` was not called.
            BadObservation: If the observation does not fit the perception.
        """
        if self._goal is None:
            raise RuntimeError("the agent has no goal yet: call reset(goal) before act(observation)")
        observation = observation.to(self.box.low.device)
        state = self.perception(observation)[:, -1]
        check_state(state, self._goal.latents)
        self._goal = self.goals.update(observation, state)
        beliefs = believed(self.position_head, state, goal=self._goal, imagined=None)
        target = self.position_head(self._goal.latents) if self._goal.position is None else self._goal.position
        move = self.gain * (target - beliefs["position"])  # (B, 3)
        longest = (move.abs() / self.box.high[self.step]).amax(dim=-1, keepdim=True).clamp_min(1)
        action = self.box.low.new_zeros(len(state), self.box.dim)
        action[:, self.step] = move / longest
        action = self.box.clip(action)
        self.goals.did(action)
        self.last = StepLog(action=action, present=state, goal=self._goal, **beliefs)
        return action
