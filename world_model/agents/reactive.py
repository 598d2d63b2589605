"""Acting without planning (LeCun's Mode-1): perceive, query the policy, act. Nothing is predicted.

Reference: LeCun 2022, A path towards autonomous machine intelligence, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.interfaces import Perception
from jepa_mpc.step_log import StepLog
from jepa_mpc.types import ActionBox, Goal, Observation
from jepa_mpc.world_model.agents.planning import believed, check_state
from jepa_mpc.world_model.policies.goal import GoalPolicy, check_actions


class ReactiveAgent:
    """Moves towards a goal image by a policy alone, for B worlds in parallel.

    Args:
        perception: Frames to latents, of the world model that the policy was trained for.
        policy: Predicts actions.
        box: The actions that the robot accepts.
        within: Number of steps to the goal given to the policy in every step: 1 means as fast as possible.
        budget: Steps in the episode, if the policy may use them all: it is then given the remaining steps, but at least
            `within`.
        position_head: Maps latents to positions (m), for the step log; or None.

    Raises:
        ValueError: If the actions of policy and robot differ, or a number is out of range.
    """

    def __init__(
        self,
        *,
        perception: Perception,
        policy: GoalPolicy,
        box: ActionBox,
        within: int = 1,
        budget: int = 0,
        position_head: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        check_actions(policy, box)
        if within < 1 or budget < 0:
            raise ValueError(f"need within >= 1 and budget >= 0, got {within} and {budget}")
        self.perception, self.policy, self.box = perception, policy, box
        self.within, self.budget, self.position_head = within, budget, position_head
        self.last: StepLog | None = None
        self._goal: Goal | None = None
        self._age = 0

    def reset(self, goal: Observation) -> None:
        """Begin an episode: encode the goal image; only its last frame is used."""
        self._goal = Goal(latents=self.perception(goal.to(self.box.low.device))[:, -1])
        self.last, self._age = None, 0

    @torch.no_grad()
    def act(self, observation: Observation) -> Annotated[Tensor, "B A"]:
        """Choose the next action `B A`: physical units, inside the box.

        Raises:
            RuntimeError: If `reset` was not called.
            BadObservation: If the observation does not fit the perception, or has another batch size than the goal.
        """
        if self._goal is None:
            raise RuntimeError("the agent has no goal yet: call reset(goal) before act(observation)")
        goal, head = self._goal.latents, self.position_head
        present = self.perception(observation.to(self.box.low.device))[:, -1]
        check_state(present, goal)
        left = torch.full((len(goal),), max(self.within, self.budget - self._age), device=goal.device)
        self._age += 1
        action = self.box.clip(self.policy(present, goal, left)[:, 0])
        beliefs = {} if head is None else believed(head, present, goal=self._goal, imagined=None)
        self.last = StepLog(action=action, present=present, goal=self._goal, **beliefs)
        return action
