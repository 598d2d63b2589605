"""A policy that learned from a world model's plans, played without planning."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.experiments.reaching.pictures import seen_size, shrunk
from jepa_mpc.types import ActionBox, Observation
from jepa_mpc.world_model.agents.reactive import ReactiveAgent
from jepa_mpc.world_model.checkpoints.loader import WorldModel
from jepa_mpc.world_model.policies.goal import GoalPolicy


class ReactivePlayer:
    """The policy alone: it is given images and nothing else, and imagines nothing.

    Args:
        policy: The policy.
        model: The world model that it belongs to; perceives, and tells how far the goal seems.
        env: Tells the action box.
    """

    def __init__(self, policy: GoalPolicy, model: WorldModel, env: ReachEnv) -> None:
        size = seen_size(env.image_size, model.interface.image_size)
        model.check_robot(box=env.action_box, cameras=env.cameras, image_size=size, dt_s=env.dt_s)
        self.model, self.device = model, next(model.objective.parameters()).device
        box = ActionBox(low=env.action_box.low.to(self.device), high=env.action_box.high.to(self.device))
        self.agent = ReactiveAgent(perception=model.perception, policy=policy, box=box)

    def begin(self, env: ReachEnv) -> None:
        """Encode the goal image."""
        self.agent.reset(self._here(env.goal()))

    def act(self, env: ReachEnv) -> NDArray[np.float32]:
        """Perceive and answer `(7,)`."""
        return self.agent.act(self._here(env.observation()))[0].cpu().numpy().astype(np.float32)

    @torch.no_grad()
    def believes_m(self) -> float:
        """Distance of the present state from the goal as the world model measures it (m), NaN if it cannot."""
        if self.model.metres is None or self.agent.present is None or self.agent.goal is None:
            return float("nan")
        gap = self.model.metres(self.agent.present) - self.model.metres(self.agent.goal)
        return float(gap[0].norm())

    def status(self) -> str:
        """No search."""
        return ""

    def _here(self, observation: Observation) -> Observation:
        frames = shrunk(observation.frames.to(self.device), self.model.interface.image_size)
        return Observation(frames=frames, cameras=observation.cameras)
