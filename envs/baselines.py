"""Baseline policies without learning: no motion, random actions, and an oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_mpc.interfaces import Agent
from jepa_mpc.step_log import StepLog
from jepa_mpc.types import ActionBox, Observation


class ReachState(Protocol):
    """State available to a baseline; more than an agent gets."""

    goal_m: NDArray[np.float64]

    @property
    def action_box(self) -> ActionBox:
        """Bounds of one action."""

    def hand_m(self) -> NDArray[np.float64]:
        """Position of the hand in the base frame, in metres."""


class Policy(Protocol):
    """Chooses actions without planning."""

    def act(self, env: ReachState) -> NDArray[np.float32]:
        """The next action `(7,)`, in physical units."""


class PolicyAgent:
    """A policy without planning as an agent: it ignores goal and observations and reads the true state.

    Args:
        policy: Chooses actions.
        env: The environment whose state it reads.
    """

    def __init__(self, policy: Policy, env: ReachState) -> None:
        self.policy, self.env = policy, env
        self.last: StepLog | None = None

    def reset(self, goal: Observation) -> None:
        """Begin an episode."""
        self.last = None

    def act(self, observation: Observation) -> Annotated[Tensor, "1 A"]:
        """The policy's action `1 A`."""
        action = torch.from_numpy(self.policy.act(self.env))[None]
        self.last = StepLog(action=action)
        return action


class SideBySideAgent:
    """Agents of one world each as one agent of all these worlds; each decides by itself.

    Args:
        agents: One per world.
    """

    def __init__(self, agents: Sequence[Agent]) -> None:
        self.agents = agents
        self.last: StepLog | None = None

    def reset(self, goal: Observation) -> None:
        """Begin an episode in each world."""
        for agent, own in zip(self.agents, _apart(goal), strict=True):
            agent.reset(own)
        self.last = None

    def act(self, observation: Observation) -> Annotated[Tensor, "B A"]:
        """Their actions `B A`."""
        seen = zip(self.agents, _apart(observation), strict=True)
        action = torch.cat([agent.act(own) for agent, own in seen])
        self.last = StepLog(action=action)
        return action


def _apart(observation: Observation) -> list[Observation]:
    """The observation of each world."""
    felt, rows = observation.proprio, (slice(b, b + 1) for b in range(len(observation.frames)))
    return [
        replace(observation, frames=observation.frames[row], proprio=None if felt is None else felt[row])
        for row in rows
    ]


class DoNothing:
    """Always returns zero actions."""

    def act(self, env: ReachState) -> NDArray[np.float32]:
        """Zeros `(7,)`."""
        return np.zeros(env.action_box.dim, dtype=np.float32)


class RandomActions:
    """Draws every action uniformly from the box.

    Args:
        generator: Source of the randomness, on the CPU.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def act(self, env: ReachState) -> NDArray[np.float32]:
        """A random action `(7,)`."""
        box = env.action_box
        share = torch.rand(box.dim, generator=self.generator)
        return box.clip(box.low + share * (box.high - box.low)).numpy()


class OracleIK:
    """Moves the hand straight to the true goal position, with steps as long as the box allows on that line.

    Args:
        env: Source of goal and hand position.
    """

    def __init__(self, env: ReachState) -> None:
        self.env = env

    def act(self, env: ReachState | None = None) -> NDArray[np.float32]:
        """The action `(7,)` towards the goal."""
        env = env or self.env
        high = env.action_box.high.numpy()[:3]
        gap = env.goal_m - env.hand_m()
        action = np.zeros(env.action_box.dim, dtype=np.float32)
        action[:3] = gap / max(1.0, float(np.max(np.abs(gap) / high)))
        return action
