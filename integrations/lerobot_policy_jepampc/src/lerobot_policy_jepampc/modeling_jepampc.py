"""The policy: a world model that LeRobot trains, and one planning agent per environment that acts in it."""

from __future__ import annotations

import functools
import itertools
import json
import math
from typing import Any, Self

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor, nn

from jepa_mpc.encoders.hand_points import HandPoints
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.face.agents import CalibratedSettings
from jepa_mpc.face.goals import goal_observation
from jepa_mpc.face.loading import load_agent, usual_kind
from jepa_mpc.face.serving import ServedRobot
from jepa_mpc.face.training.trainable import TrainableModel, described_model, new_model, open_model
from jepa_mpc.serving.session import Keys, Session
from jepa_mpc.trajectories.resizing import PictureFit
from jepa_mpc.trajectories.robot_adapter import load_robot_adapter
from jepa_mpc.types import ActionBox
from jepa_mpc.world_model.checkpoints.keypoints import load_hand_points
from jepa_mpc.world_model.dynamics.model import Interface
from lerobot_policy_jepampc.configuration_jepampc import JepaMpcConfig, camera_key, goal_key

Batch = dict[str, Any]
Numbers = np.ndarray[Any, np.dtype[np.float32]]


class JepaMpcPolicy(PreTrainedPolicy):
    """Plans towards a goal image in a world model, and plans anew after each action.

    Args:
        config: Its settings; `world_model`, `action_low` and `action_high` are filled in where they are empty.
        dataset_stats: Of a dataset's features, by LeRobot: the size of fresh weights' actions, bounds of actions.
        dataset_meta: The dataset, by LeRobot; a world model with fresh weights needs it.

    Raises:
        ValueError: If nothing says which world model, the cameras or actions do not fit it, or bounds are missing.
        BadCheckpoint: If the checkpoint cannot be read, or takes blocks of actions.
        BadObservation: If the goal cannot be read.
    """

    config_class = JepaMpcConfig
    name = "jepampc"

    def __init__(self, config: JepaMpcConfig, *, dataset_stats: Any = None, dataset_meta: Any = None) -> None:
        super().__init__(config)
        self.config: JepaMpcConfig = config
        stats = (dataset_stats or {}).get(ACTION)
        self._model = _model_of(config, stats, dataset_meta)
        self.objective: nn.Module = self._model.objective
        config.world_model = json.dumps(self._model.describe())
        config.validate_features()
        if self._model.world_model().steps_per_action > 1:
            raise BadCheckpoint("this world model takes blocks of actions, LeRobot gives one per observation")
        if not config.action_low or not config.action_high:
            config.action_low, config.action_high = _bounds(config, stats)
        self._goal = goal_observation(config.goal, **self._sight()) if config.goal else None
        self._noise: torch.Generator | None = None
        self._seeds = itertools.count(config.seed)
        self.reset()

    def get_optim_params(self) -> Any:
        """All weights that are not frozen."""
        return (weight for weight in self.parameters() if weight.requires_grad)

    def reset(self) -> None:
        """Begin an episode in each environment: memory, plans and calibration go."""
        self._sessions: list[Session] = []

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The world model's loss on windows of a dataset.

        Args:
            batch: Images `B T 3 h w` from 0 to 1 and `action` `B T-1 A`, and `observation.state` `B T P` where the
                world model needs it. Windows that reach beyond the end of their episode are left out.

        Returns:
            The loss, and its terms.

        Raises:
            ValueError: If every window reaches beyond its episode.
        """
        whole = _whole(batch)
        sees = self._model.interface
        fit = PictureFit(size=sees.image_size)
        pictures = [_fitted(_pictures(batch, camera_key(camera))[whole], fit) for camera in sees.cameras]
        windows = {"frames": torch.cat(pictures, dim=2), "actions": batch[ACTION][whole]}
        if OBS_STATE in batch:
            windows["proprio"] = batch[OBS_STATE][whole]
        device = windows["actions"].device
        if self._noise is None or self._noise.device != device:
            self._noise = torch.Generator(device).manual_seed(self.config.seed)
        loss = self.objective(windows, self._noise)
        return loss.total, {name: float(term) for name, term in loss.terms.items() if name != "total"}

    def select_action(self, batch: Batch, **_: Any) -> Tensor:
        """One decision: the next action `B A`, in the units of the dataset's actions.

        Args:
            batch: Images `B 3 h w` from 0 to 1 of any size, one environment per row.

        Raises:
            BadObservation: If an image or the goal is missing.
        """
        return self._decided(batch, "actions")[:, 0]

    def predict_action_chunk(self, batch: Batch, **_: Any) -> Tensor:
        """One decision: the whole plan `B H A`. Its first action counts as executed."""
        return self._decided(batch, "plan")

    def _decided(self, batch: Batch, what: str) -> Tensor:
        cameras = self._model.interface.cameras
        seen = {key: _pictures(batch, key) for key in map(camera_key, cameras)}
        if self._goal is None:
            seen |= {key: batch[key] for key in map(goal_key, cameras) if key in batch}
        rows = {key: _uint8(pictures).movedim(-3, -1).cpu().numpy() for key, pictures in seen.items()}
        if OBS_STATE in batch:
            rows[OBS_STATE] = batch[OBS_STATE].cpu().numpy()
        count = len(rows[camera_key(cameras[0])])
        with torch.inference_mode(False):  # some planners follow gradients
            if len(self._sessions) != count:
                self._sessions = self._begun(count)
            answers = [
                session.answer({key: value[row] for key, value in rows.items()})
                for row, session in enumerate(self._sessions)
            ]
        found = [answer["actions"] if what == "actions" else self._plan(answer) for answer in answers]
        return torch.from_numpy(np.stack(found)).to(self.config.device)

    def _plan(self, answer: dict[str, Any]) -> Numbers:
        """The plan `H A`; a hold action is repeated."""
        if "plan" in answer and answer.get("plan/status") != "hold":
            return answer["plan"]
        return np.repeat(answer["actions"], self.config.horizon, axis=0)

    def _begun(self, count: int) -> list[Session]:
        """A new agent for each environment, all of them on the same weights."""
        config, model = self.config, self._model.world_model()
        kind = config.kind or usual_kind(model)
        robot = ServedRobot(
            **self._sight(),
            dt_s=model.interface.dt_s,
            action_box=ActionBox(low=torch.tensor(config.action_low), high=torch.tensor(config.action_high)),
        )
        keys = Keys(
            cameras=robot.cameras,
            images=tuple(map(camera_key, robot.cameras)),
            goals=tuple(map(goal_key, robot.cameras)),
            state=(OBS_STATE,) if model.needs_proprio else (),
        )
        device = str(config.device)
        settings: dict[str, Any] = {
            "kind": kind, "planner": config.planner, "horizon": config.horizon, "effort": config.effort,
            "hold_m": config.hold_m, "device": device,
        }  # fmt: skip
        if kind == "calibrated":
            settings["keypoints"] = _keypoints(device)
        return [
            Session(
                load_agent(robot, model, seed=next(self._seeds), **settings).agent,
                keys,
                fit=PictureFit(size=robot.image_size),
                goal=self._goal,
                deadline_s=config.deadline_s or math.inf,
            )
            for _ in range(count)
        ]

    def _sight(self) -> dict[str, Any]:
        """Cameras and size of the images that an agent gets."""
        model = self._model.world_model()
        calibrated = (self.config.kind or usual_kind(model)) == "calibrated"
        size = model.interface.image_size
        return {
            "cameras": model.interface.cameras,
            "image_size": CalibratedSettings().picture_px(size) if calibrated else size,
        }

    @classmethod
    def _load_as_safetensor(cls, model: Self, model_file: str, map_location: str, strict: bool) -> Self:
        """Weights one to one, whatever LeRobot's default says."""
        return super()._load_as_safetensor(model, model_file, map_location, True)


@functools.cache
def _keypoints(device: str) -> HandPoints:
    """What calibrated agents find the hand with; it is shipped, and no part of the policy that is saved."""
    return load_hand_points("hand_points", device=device)


def _model_of(config: JepaMpcConfig, stats: Any, meta: Any) -> TrainableModel:
    """The world model: the one that was saved, that of a checkpoint, or a new one for the dataset."""
    if config.world_model:
        return described_model(config.described())
    if config.checkpoint:
        return open_model(config.checkpoint)
    if stats is None or meta is None or config.action_feature is None:
        raise ValueError(
            "there is no world model: give --policy.checkpoint=reach_wide (a name, a folder or hf://owner/name) or a "
            "policy that lerobot-train saved (--policy.path=FOLDER)"
        )
    start = camera_key("")
    cameras = tuple(name.removeprefix(start) for name in config.image_features if name.startswith(start))
    if not cameras:
        raise ValueError(f"the dataset has no images {start}NAME, only {', '.join(config.input_features or {})}")
    width = math.prod(config.action_feature.shape)
    names = config.action_feature_names or []
    interface = Interface(
        cameras=cameras,
        image_size=config.image_size,
        actions=tuple(names) if len(names) == width else tuple(f"action {axis}" for axis in range(width)),
        dt_s=1 / meta.fps,
        log=f"{meta.total_episodes} episodes, {meta.total_frames} observations of {meta.repo_id}",
    )
    return new_model(config.system, interface, spread=torch.as_tensor(stats["std"]), seed=config.seed)


def _bounds(config: JepaMpcConfig, stats: Any) -> tuple[list[float], list[float]]:
    """The actions that the dataset has seen, or the log of the checkpoint."""
    if stats is not None:
        return torch.as_tensor(stats["min"]).tolist(), torch.as_tensor(stats["max"]).tolist()
    try:
        box = load_robot_adapter(config.checkpoint).box()
    except (BadCheckpoint, ValueError) as error:
        raise ValueError(f"give --policy.action_low and --policy.action_high: {error}") from error
    return box.low.tolist(), box.high.tolist()


def _pictures(batch: Batch, key: str) -> Tensor:
    if key not in batch:
        raise ValueError(f"the batch lacks the images {key}; it has {', '.join(batch)}")
    return batch[key]


def _uint8(pictures: Tensor) -> Tensor:
    return pictures if pictures.dtype == torch.uint8 else (255 * pictures).round().clamp(0, 255).to(torch.uint8)


def _fitted(pictures: Tensor, fit: PictureFit) -> Tensor:
    """Images `B T 3 h w` from 0 to 1 as uint8 of the world model's size."""
    raw = _uint8(pictures)
    if fit.shape(*raw.shape[-2:]) == tuple(raw.shape[-2:]):
        return raw
    small = fit(raw.flatten(0, 1).movedim(1, -1).cpu().numpy())
    return torch.from_numpy(small).movedim(-1, 1).unflatten(0, raw.shape[:2]).to(raw.device)


def _whole(batch: Batch) -> Tensor:
    """Which windows lie within their episode `B` (bool)."""
    padded = [flags for name, flags in batch.items() if name.endswith("_is_pad")]
    whole = (
        ~torch.cat(padded, dim=1).any(dim=1) if padded else torch.ones_like(batch[ACTION][:, 0, 0], dtype=torch.bool)
    )
    if not bool(whole.any()):
        raise ValueError("no window of this batch lies within its episode: shorter --policy.window, or larger batches")
    return whole
