"""Acting without planning (LeCun's Mode-1): perceive, ask the policy, act. No future is imagined.

Reference: LeCun 2022, A path towards autonomous machine intelligence, section 3.1.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.errors import BadObservation
from jepa_mpc.interfaces import Perception
from jepa_mpc.types import ActionBox, Observation, State
from jepa_mpc.world_model.policies.goal import GoalPolicy, check_actions


class ReactiveAgent:
    """Moves towards a goal image by a policy alone, for B worlds side by side.

    Args:
        perception: Frames to latents, of the world model that the policy belongs to.
        policy: Answers actions.
        box: The actions that the robot accepts.
        within: Steps in which the policy is asked to arrive, again and again: 1 is as soon as it can.
        budget: Steps in the episode, if the policy shall take its time: it is told the steps that are left, and
            `within` as soon as there are fewer.

    Raises:
        ValueError: If policy and robot have other actions, or a number is out of range.
    """

    def __init__(
        self, *, perception: Perception, policy: GoalPolicy, box: ActionBox, within: int = 1, budget: int = 0
    ) -> None:
        check_actions(policy, box)
        if within < 1 or budget < 0:
            raise ValueError(f"need within >= 1 and budget >= 0, got {within} and {budget}")
        self.perception, self.policy, self.box = perception, policy, box
        self.within, self.budget = within, budget
        self.present: State | None = None
        self.goal: State | None = None
        self._age = 0

    def reset(self, goal: Observation) -> None:
        """Begin an episode: encode the goal image; its last frame counts."""
        self.goal, self.present, self._age = self.perception(goal)[:, -1], None, 0

    @torch.no_grad()
    def act(self, observation: Observation) -> Annotated[Tensor, "B A"]:
        """Choose the next action `B A`: physical units, inside the box.

        Raises:
            RuntimeError: If `reset` was not called.
            BadObservation: If the observation is not what the perception was made for, or has another batch than the
                goal.
        """
        if self.goal is None:
            raise RuntimeError("the agent has no goal yet: call reset(goal) before act(observation)")
        self.present = self.perception(observation)[:, -1]
        if self.present.shape != self.goal.shape:
            raise BadObservation(
                f"the observation gives latents {tuple(self.present.shape)} and the goal gave "
                f"{tuple(self.goal.shape)}: both need the same number of worlds and the same encoder"
            )
        left = torch.full((len(self.goal),), max(self.within, self.budget - self._age), device=self.goal.device)
        self._age += 1
        return self.box.clip(self.policy(self.present, self.goal, left)[:, 0])
