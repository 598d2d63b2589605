"""Practice: a world model tries to reach goal images, and its attempts are recorded to train on.

The agent sees what it sees in an evaluation: images, proprioception and goal images, but no reward and no object
position. So the log holds the states that its planner leads to, which scripted motion does not visit.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.random import Generator

from jepa_mpc.checkpoint import place_of
from jepa_mpc.envs.pick import PICKING, PickEnv
from jepa_mpc.face.handling.seeing_agents import SEEING, WORLD_MODEL, Looking
from jepa_mpc.face.handling.state_agents import Planning
from jepa_mpc.world_model.agents.handling_eyes import check_heads
from jepa_mpc.world_model.checkpoints.loader import load_world_model
from jepa_mpc.world_model.dynamics.model import WorldModel

PLANNING = Planning(horizon=4, num_samples=32, num_iterations=2)  # fewer plans than in an evaluation
NOISE_M = 0.01  # largest standard deviation of the noise that an episode adds to its steps
FREE_GRIP = 0.15  # share of steps with a random gripper command
GRIPPER = 6  # index of the gripper in an action


class Practice:
    """Acts on goal images by planning in a world model, with noise.

    Args:
        env: The task, after its reset.
        model: The world model (`system=handling`).
    """

    def __init__(self, env: PickEnv, model: WorldModel) -> None:
        self.env, self.model = env, model
        self.noise_m = 0.0
        self._agent: Looking | None = None

    def start(self, proprio: np.ndarray, generator: Generator) -> None:
        """Begin an episode and draw the size of its noise."""
        draws = torch.Generator().manual_seed(int(generator.integers(2**31)))
        self.noise_m = float(generator.uniform(0.0, NOISE_M))
        self._agent = SEEING[WORLD_MODEL](self.env, self.model, PLANNING, draws)

    def __call__(self, proprio: np.ndarray, generator: Generator) -> np.ndarray:
        """The next action."""
        assert self._agent is not None, "start comes first"
        action = self._agent.act().astype(np.float64)
        action[:3] += self.noise_m * generator.normal(size=3)
        if generator.random() < FREE_GRIP:
            action[GRIPPER] = generator.uniform(-1.0, 1.0)
        box = self.env.action_box
        return np.clip(action, box.low.numpy(), box.high.numpy()).astype(np.float32)


def goals_of(index: int) -> dict[str, str]:
    """Options of the reset that show each episode the goals of another protocol, in turn."""
    return {"protocol": PICKING[index % len(PICKING)]}


@cache
def practising(checkpoint: str, *, cameras: tuple[str, ...], image_size: int) -> WorldModel:
    """The world model of a checkpoint, loaded once per process and checked against what is recorded.

    Raises:
        BadCheckpoint: If it cannot be read, or has no heads for handling.
        ValueError: If it sees other cameras or another image size.
    """
    model = load_world_model(place_of(checkpoint))
    check_heads(model)
    sees = model.interface
    if (tuple(sees.cameras), sees.image_size) != (cameras, image_size):
        raise ValueError(
            f"{checkpoint} sees {', '.join(sees.cameras)} at {sees.image_size} px, got cameras={list(cameras)} "
            f"image_size={image_size}: record what it sees"
        )
    return model
