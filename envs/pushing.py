"""Cost and policy for pushing a block: the hand must first be behind it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from jepa_mpc.envs.plant import Array
from jepa_mpc.types import ActionBox

BEHIND_M = 0.075  # from the block's centre to the hand before a push
ASIDE_M = 0.11
NEAR_M = 0.01
ALIGNED_M = 0.025
ARRIVED_M = 0.02


def approach(now: Tensor, goal: Tensor) -> Tensor:
    """Distance (m) of the hand to the position behind the block, as seen from the block's goal; sensors `... 6`.

    The last centimetre does not count, nor does any of it if the block is at its goal.
    """
    hand, block, wanted = now[..., 0:2], now[..., 3:5], goal[..., 3:5]
    way = wanted - block
    length = way.square().sum(dim=-1, keepdim=True).add(1e-9).sqrt()
    behind = block - BEHIND_M * way / length
    gap = (hand - behind).square().sum(dim=-1).add(1e-9).sqrt()
    matters = torch.clamp(length[..., 0] / 0.04, max=1.0)
    return matters * torch.relu(gap - NEAR_M)


class Pushing(Protocol):
    """State that the policy reads."""

    goal_m: NDArray[np.float64]

    @property
    def action_box(self) -> ActionBox:
        """Bounds of one action."""

    def hand_m(self) -> NDArray[np.float64]:
        """Position of the hand in the base frame (m)."""

    def block_m(self) -> NDArray[np.float64]:
        """Position of the block in the base frame (m)."""


class Pusher:
    """Goes around the block to the position behind it, then pushes towards the goal.

    Args:
        env: Source of hand, block and goal positions.
    """

    def __init__(self, env: Pushing) -> None:
        self.env = env

    def act(self, env: object = None) -> NDArray[np.float32]:
        """The action `(7,)`."""
        hand, block, goal = self.env.hand_m()[:2], self.env.block_m()[:2], self.env.goal_m[:2]
        length = float(np.linalg.norm(goal - block))
        action = np.zeros(self.env.action_box.dim, dtype=np.float32)
        if length < NEAR_M:
            return action
        forward = (goal - block) / length
        step = self._step(hand - block, forward, length)
        high = self.env.action_box.high.numpy()[:2]
        action[:2] = step / max(1.0, float(np.max(np.abs(step) / high)))
        return action

    def _step(self, hand_from_block: Array, forward: Array, length: float) -> Array:
        """The direction of motion: push, line up behind the block, or go around it."""
        along = float(hand_from_block @ forward)
        across = hand_from_block - along * forward
        aside = float(np.linalg.norm(across))
        if along < 0 and aside < ALIGNED_M:
            return min(length, 0.03) * forward * (1.0 if -along < BEHIND_M else 1.5) - across
        if along < -0.8 * BEHIND_M:
            return -BEHIND_M * forward - hand_from_block
        side = across / aside if aside > 1e-6 else np.array([-forward[1], forward[0]])
        if aside < 0.9 * ASIDE_M:
            return (ASIDE_M - aside) * side
        return -1.3 * BEHIND_M * forward - along * forward


class PushAbout:
    """Pushes the block between random positions, for logs of pushes; a motion of `trajectories`.

    Args:
        env: Source of hand and block positions; its goal is moved.
        low_m: Lower corner of the block's positions `2`, in the base frame.
        high_m: Upper corner.
        noise: Standard deviation of the commands, in half widths of the action box.
    """

    def __init__(
        self, env: Pushing, *, low_m: NDArray[np.float64], high_m: NDArray[np.float64], noise: float = 0.25
    ) -> None:
        self.env, self.low_m, self.high_m, self.noise = env, low_m, high_m, noise
        self._pusher = Pusher(env)

    def start(self, proprio: NDArray[np.float32], generator: Generator) -> None:
        """Begin an episode."""
        self._elsewhere(generator)

    def __call__(self, proprio: NDArray[np.float32], generator: Generator) -> NDArray[np.float32]:
        """The next action `(7,)`."""
        if float(np.linalg.norm((self.env.goal_m - self.env.block_m())[:2])) < ARRIVED_M:
            self._elsewhere(generator)
        low, high = self.env.action_box.low.numpy(), self.env.action_box.high.numpy()
        shaken = self._pusher.act() + self.noise * (high - low) / 2 * generator.standard_normal(len(low))
        return np.clip(shaken, low, high).astype(np.float32)

    def _elsewhere(self, generator: Generator) -> None:
        self.env.goal_m = np.array([*generator.uniform(self.low_m, self.high_m), self.env.goal_m[2]])
