"""Agents with ACT-JEPA chunk policies: the policy alone (Mode-1), or as a proposal for a planner."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from jepa_mpc.interfaces import Agent
from jepa_mpc.step_log import StepLog
from jepa_mpc.types import Observation, Plan
from jepa_mpc.world_model.policies.chunk import ChunkPolicy


class ChunkAgent:
    """The Mode-1 actor: it predicts a chunk, executes a part of it, and predicts again, without rollouts.

    Args:
        policy: Predicts chunks.
        execute: Actions of a chunk executed before the next prediction.
        within: Minimum number of steps to the goal given to the policy.
        budget: Steps in which to reach the goal; the policy is conditioned on the remaining ones, or on `within` if
            there are fewer.

    Raises:
        ValueError: If a number is out of range.

    Reference: LeCun 2022, A path towards autonomous machine intelligence, section 3.1.
    """

    def __init__(self, policy: ChunkPolicy, *, execute: int = 1, within: int = 1, budget: int = 0) -> None:
        if not 1 <= execute <= policy.objective.decoder.chunk or within < 1 or budget < 0:
            raise ValueError(
                f"need 1 <= execute <= {policy.objective.decoder.chunk} (the chunk), within >= 1 and budget >= 0, got "
                f"{execute}, {within} and {budget}"
            )
        self.policy, self.execute, self.within, self.budget = policy, execute, within, budget
        self.last: StepLog | None = None
        self._plan: Plan | None = None
        self._age = 0

    def reset(self, goal: Observation) -> None:
        """Begin an episode."""
        self.policy.reset(goal.to(self.policy.box.low.device))
        self.last, self._plan, self._age = None, None, 0

    def aim(self, goal: Observation) -> None:
        """Continue towards another goal, with the whole budget again."""
        self.reset(goal)

    def act(self, observation: Observation) -> Annotated[Tensor, "B A"]:
        """The next action `B A`: physical units, inside the box.

        Raises:
            RuntimeError: If `reset` was not called.
            BadObservation: If the observation does not fit the networks.
        """
        place = self._age % self.execute
        if place == 0 or self._plan is None:
            self.policy.see(observation.to(self.policy.box.low.device))
            self._plan = self.policy.chunk(max(self.within, self.budget - self._age))
        self._age += 1
        action = self._plan[:, place]
        self.last = StepLog(action=action, present=self.policy.present, planned=place == 0)
        return action


class SeededAgent:
    """A planning agent whose chunk policy receives the same observations.

    Args:
        agent: The planning agent; its proposal uses `policy`.
        policy: Predicts chunks.
    """

    def __init__(self, agent: Agent, *, policy: ChunkPolicy) -> None:
        self.agent, self.policy = agent, policy

    @property
    def last(self) -> StepLog | None:
        """The planning agent's log of the last step."""
        return self.agent.last

    def reset(self, goal: Observation) -> None:
        """Begin an episode."""
        goal = goal.to(self.policy.box.low.device)
        self.policy.reset(goal)
        self.agent.reset(goal)

    def act(self, observation: Observation) -> Annotated[Tensor, "B A"]:
        """Pass the observation to both, and return the agent's action `B A`."""
        observation = observation.to(self.policy.box.low.device)
        self.policy.see(observation)
        return self.agent.act(observation)
