"""A task of jepa-mpc with the observations, attributes and infos that LeRobot expects of an environment."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

import jepa_mpc

Array = np.ndarray[Any, np.dtype[Any]]
Observation = dict[str, Any]


class LabEnv(gymnasium.Env[Observation, Array]):
    """An arm at its table in a lab that is drawn anew for each episode.

    Observations: `pixels`, one image `(size, size, 3)` uint8 per camera and, as `goal_<camera>`, the goal image of
    each; `agent_pos`, the proprioception. The goal of a task with sub-goals changes under way. An episode is truncated
    after its steps. `info["is_success"]` tells in the last step whether the goal is reached then, and is False before.

    Args:
        task: A task of the arm: "reach-v1", "push-v1" or "pick-v1".
        **settings: Arguments of the task's class: `cameras`, `image_size`, `budget`, `split`, `robot`, `protocol` ...

    Raises:
        UnknownName: If there is no such task, camera, split or robot.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(self, task: str = "reach-v1", **settings: Any) -> None:
        self.env = jepa_mpc.make_env(task, render_mode="rgb_array", **settings)
        self.render_mode = "rgb_array"
        self.task, self.task_description = task, self.env.describe
        self._max_episode_steps: int = self.env.budget
        size = self.env.image_size
        picture = Box(0, 255, (size, size, 3), np.uint8)
        self.pictures = (*self.env.cameras, *(f"goal_{camera}" for camera in self.env.cameras))
        felt = self.env.observation_space["proprio"]
        self.observation_space = Dict({"pixels": Dict(dict.fromkeys(self.pictures, picture)), "agent_pos": felt})
        self.action_space = self.env.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Any]:
        """Begin an episode in a new lab; options are those of the task."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._shown(observation), {**info, "is_success": False}

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Carry out one action `(A,)`; one outside of the bounds is clipped to them."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        success = bool(truncated and not terminated and info["is_success"])
        return self._shown(observation), reward, terminated, truncated, {**info, "is_success": success}

    def render(self) -> Array:
        """An image of the scene `(384, 384, 3)`."""
        return self.env.render()

    def close(self) -> None:
        """Free the OpenGL context."""
        self.env.close()

    def _shown(self, observation: Observation) -> Observation:
        stacked = np.concatenate([observation["frames"], observation["goal"]])
        parts = np.split(stacked, len(self.pictures))
        pixels = {
            name: np.ascontiguousarray(part.transpose(1, 2, 0)) for name, part in zip(self.pictures, parts, strict=True)
        }
        return {"pixels": pixels, "agent_pos": observation["proprio"]}
