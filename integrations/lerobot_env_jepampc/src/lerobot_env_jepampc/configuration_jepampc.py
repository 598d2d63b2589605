"""What can be said of the labs on LeRobot's command line, and the vector environments made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from lerobot_env_jepampc.lab_env import LabEnv


@EnvConfig.register_subclass("jepampc")
@dataclass
class JepaMpcEnv(EnvConfig):
    """Labs of jepa-mpc.

    Args:
        task: "reach-v1", "push-v1" or "pick-v1".
        fps: Frames per second of recordings; a step lasts 0.24 s.
        cameras: Names of the cameras; empty for those that the task has.
        image_size: Width and height of the images (px).
        episode_length: Steps per episode; 0 for as many as the task has.
        split: Which labs are drawn: "in" as in the training logs, "look", "camera" ... (docs/environments.md).
        robot: Name of the arm.
        settings: Further arguments of the task's class, such as `{protocol: moved}` of pick-v1.
        features: What policies are given; filled in from the task.
        features_map: Likewise.
    """

    task: str = "reach-v1"
    fps: int = 4
    cameras: list[str] = field(default_factory=list)
    image_size: int = 128
    episode_length: int = 0
    split: str = "in"
    robot: str = "panda"
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        env = LabEnv(self.task, **self.gym_kwargs)
        try:
            pictures = {f"{OBS_IMAGES}.{name}": (self.image_size, self.image_size, 3) for name in env.pictures}
            felt, acted = env.observation_space["agent_pos"].shape, env.action_space.shape
        finally:
            env.close()
        visual = {name: PolicyFeature(type=FeatureType.VISUAL, shape=shape) for name, shape in pictures.items()}
        self.features = {
            ACTION: PolicyFeature(type=FeatureType.ACTION, shape=acted),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=felt),
            **visual,
        }
        self.features_map = {name: name for name in self.features} | {"agent_pos": OBS_STATE}

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Arguments of the task's class."""
        known = {"image_size": self.image_size, "split": self.split, "robot": self.robot, **self.settings}
        known |= {"cameras": tuple(self.cameras)} if self.cameras else {}
        return known | ({"budget": self.episode_length} if self.episode_length else {})

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, VectorEnv]]:
        """The task as one vector environment: `{task: {0: environments}}`.

        Args:
            n_envs: Environments side by side.
            use_async_envs: Whether each of several runs in a process of its own, started afresh.
        """
        makers = [partial(LabEnv, self.task, **self.gym_kwargs)] * n_envs
        mode = AutoresetMode.SAME_STEP
        if use_async_envs and n_envs > 1:
            return {self.task: {0: AsyncVectorEnv(makers, autoreset_mode=mode, context="spawn")}}
        return {self.task: {0: SyncVectorEnv(makers, autoreset_mode=mode)}}
