"""What can be said of the policy on LeRobot's command line, and what its `config.json` holds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig
from lerobot.utils.constants import OBS_IMAGES

GOAL = "goal_"


def camera_key(camera: str) -> str:
    """The feature of a camera's images."""
    return f"{OBS_IMAGES}.{camera}"


def goal_key(camera: str) -> str:
    """The feature of a camera's goal images, where the environment shows them."""
    return camera_key(GOAL + camera)


@PreTrainedConfig.register_subclass("jepampc")
@dataclass
class JepaMpcConfig(PreTrainedConfig):
    """Settings of `JepaMpcPolicy`.

    Args:
        checkpoint: Initial world model: the name of a shipped one, a folder, or `hf://owner/name`; "" for random
            weights.
        system: Without a checkpoint, the system to train: the name of a file in configs/system of jepa-mpc.
        image_size: Without a checkpoint, width and height of the images after resizing (px).
        window: Observations per sample of the training.
        goal: The goal: one image file per camera, or one `FOLDER:EPISODE:FRAME` of a dataset on disk. Empty: the
            images `observation.images.goal_<camera>` of each batch.
        kind: "calibrated" or "simple" agent; "" for what fits the world model (`jepa_mpc.load_agent`).
        planner: The name of a file in configs/planner of jepa-mpc.
        horizon: Planning horizon, steps.
        effort: Weight of the actions' size against the distance from the goal.
        hold_m: Do not move while the estimated distance to the goal is below this (m).
        deadline_s: Seconds that one decision may take; 0 for no limit.
        seed: Of initial weights, of the planner and of the training's noise.
        action_low: Lower bounds of an action; empty for those that the dataset or the checkpoint's log has seen.
        action_high: Upper bounds, likewise.
        optimizer_lr: Learning rate.
        optimizer_weight_decay: Weight decay of AdamW.
        optimizer_grad_clip_norm: Longest gradient.
        action_feature_names: Names of the action's axes; LeRobot fills them in from the dataset.
        world_model: What builds the network, and what it sees and commands, as JSON; the policy fills it in.
    """

    checkpoint: str = ""
    system: str = "environment"
    image_size: int = 64
    window: int = 5
    goal: list[str] = field(default_factory=list)
    kind: str = ""
    planner: str = "cem_short"
    horizon: int = 2
    effort: float = 0.05
    hold_m: float = 0.0
    deadline_s: float = 0.0
    seed: int = 0
    action_low: list[float] = field(default_factory=list)
    action_high: list[float] = field(default_factory=list)
    optimizer_lr: float = 1e-3
    optimizer_weight_decay: float = 1e-2
    optimizer_grad_clip_norm: float = 1.0
    action_feature_names: list[str] | None = None
    world_model: str = ""
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(("VISUAL", "STATE", "ENV", "ACTION"), NormalizationMode.IDENTITY)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 2:
            raise ValueError(f"window must be 2 observations or more, got {self.window}")

    @property
    def observation_delta_indices(self) -> list[int]:
        """Steps of the observations of a training sample, from its first one."""
        return list(range(self.window))

    @property
    def action_delta_indices(self) -> list[int]:
        """Likewise of its actions; each leads from an observation to the next."""
        return list(range(self.window - 1))

    @property
    def reward_delta_indices(self) -> None:
        """None: rewards are not used."""
        return None

    @property
    def drop_n_last_frames(self) -> int:
        """Frames at the end of an episode with which no sample begins, for it would reach beyond the end."""
        return self.window - 1

    def get_optimizer_preset(self) -> AdamWConfig:
        """AdamW."""
        return AdamWConfig(
            lr=self.optimizer_lr,
            betas=(0.9, 0.98),
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def get_scheduler_preset(self) -> None:
        """None: the learning rate is constant."""
        return None

    def described(self) -> dict[str, Any]:
        """What `world_model` holds; empty before there is a world model."""
        return json.loads(self.world_model) if self.world_model else {}

    def validate_features(self) -> None:
        """Compare what dataset or environment offer with what the world model sees and commands.

        Raises:
            ValueError: If a camera is missing, or actions are of another width.
        """
        sees = self.described()["interface"]
        offered = [name for name in self.image_features if not name.startswith(camera_key(GOAL))]
        missing = [camera for camera in sees["cameras"] if camera_key(camera) not in offered]
        if missing:
            raise ValueError(
                f"the world model sees the cameras {', '.join(sees['cameras'])}, and {camera_key(missing[0])} is not "
                f"among the images offered ({', '.join(offered) or 'none'}): take another checkpoint or other cameras"
            )
        action, width = self.action_feature, len(sees["actions"])
        if action is None or tuple(action.shape) != (width,):
            came = "no action" if action is None else f"actions of shape {tuple(action.shape)}"
            raise ValueError(f"the world model takes actions of {width} numbers, dataset or environment has {came}")
