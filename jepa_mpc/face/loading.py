"""From the name of a checkpoint to something that acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from jepa_mpc.encoders.hand_points import HandPoints
from jepa_mpc.envs.true_dynamics import true_dynamics
from jepa_mpc.errors import BadObservation, choose
from jepa_mpc.face.agents import CalibratedSettings, RobotFacts, calibrated_agent, planning_agent
from jepa_mpc.face.agents import true_dynamics_agent as simulator_agent
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.places import CONFIGS
from jepa_mpc.step_log import StepLog
from jepa_mpc.trajectories.robot_adapter import RobotAdapter, RobotAgent, load_robot_adapter
from jepa_mpc.types import ActionBox, Observation
from jepa_mpc.world_model.agents.blocks import BlockAgent
from jepa_mpc.world_model.agents.planning import PlanningAgent
from jepa_mpc.world_model.checkpoints.keypoints import load_hand_points
from jepa_mpc.world_model.checkpoints.loader import load_world_model as load_folder
from jepa_mpc.world_model.dynamics.model import WorldModel

AgentKind = Literal["calibrated", "simple"]
GymObservation = Mapping[str, NDArray[Any]]


def load_world_model(checkpoint: str | Path, *, device: torch.device | str = "cpu") -> WorldModel:
    """A trained world model.

    Args:
        checkpoint: The name of a shipped one (`reach_wide`), a folder, or `hf://owner/name`.
        device: Where its networks shall run.

    Raises:
        BadCheckpoint: If it is missing, damaged, or describes no world model.
    """
    return load_folder(checkpoint, device=device)


def load_agent(
    robot: RobotFacts,
    checkpoint: str | Path | WorldModel | None = None,
    *,
    kind: AgentKind | None = None,
    keypoints: str | Path | HandPoints = "hand_points",
    planner: str | Mapping[str, Any] = "cem_short",
    horizon: int = 2,
    effort: float = 0.05,
    hold_m: float = 0.0,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> EnvironmentAgent:
    """An agent that plans in a trained world model, for one robot.

    Args:
        robot: An environment, within gymnasium's wrappers or without, or whatever tells `action_box`, `cameras`,
            `image_size` and `dt_s`.
        checkpoint: The world model, or where it lies (see `load_world_model`); by default the shipped one for as many
            cameras.
        kind: "calibrated" finds the hand in the pictures and corrects the goal on the way, "simple" plans and nothing
            else; by default calibrated where the world model can measure positions and the robot has two cameras.
        keypoints: What the calibrated agent finds the hand with, or where it lies.
        planner: The name of a file in configs/planner, or a mapping with `_target_` and arguments.
        horizon: Steps that a plan looks ahead.
        effort: Weight of the actions' size against the squared distance (m^2).
        hold_m: Stand still while the goal seems nearer than this (m).
        seed: Seed of the planner.
        device: Where the networks shall run.

    Raises:
        BadCheckpoint: If a checkpoint cannot be read, or was trained for another robot.
        UnknownName: If there is no such planner.
    """
    robot = getattr(robot, "unwrapped", robot)
    model = checkpoint or ("reach_wide" if len(robot.cameras) > 1 else "reach_one_camera")
    if not isinstance(model, WorldModel):
        model = load_world_model(model, device=device)
    settings = plan_settings(planner, horizon=horizon, effort=effort, hold_m=hold_m)
    if (kind or usual_kind(model)) == "simple":
        agent = planning_agent(model, robot, settings, seed=seed)
    else:
        agent = calibrated_agent(
            CalibratedSettings(),
            model,
            keypoints if isinstance(keypoints, HandPoints) else load_hand_points(keypoints, device=device),
            robot,
            settings,
            seed=seed,
        )
    return EnvironmentAgent(agent, cameras=robot.cameras)


def usual_kind(model: WorldModel) -> AgentKind:
    """The agent that fits a world model: calibrated, if it measures positions and has two cameras."""
    return "calibrated" if len(model.interface.cameras) > 1 and model.position_head is not None else "simple"


@dataclass(frozen=True, kw_only=True)
class AdaptedRobot:
    """A robot behind its adapter, as `load_agent` takes it.

    Args:
        adapter: Translates pictures, columns and commands.
        image_size: Width and height of the pictures that the world model takes (px).
        action_box: Bounds of one action.
    """

    adapter: RobotAdapter
    image_size: int
    action_box: ActionBox

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras, in stacking order."""
        return self.adapter.cameras

    @property
    def dt_s(self) -> float:
        """Seconds between two observations."""
        return self.adapter.step_s


def load_robot_agent(
    checkpoint: str | Path,
    *,
    kind: AgentKind | None = None,
    box: ActionBox | None = None,
    device: torch.device | str = "cpu",
    **settings: Any,
) -> RobotAgent:
    """An agent for a real robot: pictures and columns of the robot in, the robot's own commands out.

    Args:
        checkpoint: The world model (see `load_world_model`), with the robot adapter of its training log.
        kind: As in `load_agent`: calibrated where the world model measures positions and has two cameras. The
            calibrated agent gets the cameras' pictures at 128 px or more, whatever the world model sees.
        box: Limits of one action; by default the range that the training log has seen.
        device: Where the networks shall run.
        **settings: See `load_agent`.

    Raises:
        BadCheckpoint: If the checkpoint cannot be read or carries no robot adapter.
        ValueError: If no limits are given and the checkpoint does not know the range of its log.
    """
    model = load_world_model(checkpoint, device=device)
    kind = kind or usual_kind(model)
    size = model.interface.image_size
    if kind == "calibrated":
        size = CalibratedSettings().picture_px(size)
    adapter = load_robot_adapter(checkpoint)
    adapter = replace(adapter, picture=replace(adapter.picture, size=size))
    robot = AdaptedRobot(adapter=adapter, image_size=size, action_box=adapter.box() if box is None else box)
    agent = load_agent(robot, model, kind=kind, device=device, **settings).agent
    return RobotAgent(agent, adapter, feels=model.needs_proprio)


def true_dynamics_agent(
    env: Any,
    *,
    planner: str | Mapping[str, Any] = "cem",
    horizon: int | None = None,
    effort: float = 0.0,
    dynamics: str | None = None,
    num_threads: int = 1,
    seed: int = 0,
) -> PlanningAgent:
    """An agent that plans in the simulator itself: an upper bound for world models, and a first test of a task.

    Args:
        env: A task of ours or of one's own (`envs.task.PlannableEnv`); its full state is read.
        planner: See `load_agent`.
        horizon: Steps that a plan looks ahead; the task's own by default.
        effort: Weight of the actions' size against the task's cost.
        dynamics: "simulator" (MuJoCo on the CPU), "warp" (MuJoCo Warp) or "stepping" (environments of gymnasium); by
            default what suits the task.
        num_threads: CPU threads of "simulator".
        seed: Seed of the planner.

    Raises:
        UnknownName: If there is no such planner or dynamics.
        MissingPackage: If the package of the dynamics is not installed.
    """
    settings = plan_settings(planner, horizon=env.horizon if horizon is None else horizon, effort=effort)
    world = true_dynamics(env, dynamics, num_threads=num_threads)
    return simulator_agent(env, settings, seed=seed, dynamics=world, cost=env.cost())


def plan_settings(planner: str | Mapping[str, Any], **settings: Any) -> PlanSettings:
    """Settings from the name of a planner's file, or from its entries.

    Raises:
        UnknownName: If there is no such file.
    """
    if isinstance(planner, str):
        files = {path.stem: path for path in (CONFIGS / "planner").glob("*.yaml")}
        planner = yaml.safe_load(choose(files, planner, "planner").read_text(encoding="utf-8"))
    assert not isinstance(planner, str)
    arguments = {str(name): value for name, value in planner.items() if name != "_target_"}
    return PlanSettings(planner=str(planner["_target_"]), arguments=arguments, **settings)


class EnvironmentAgent:
    """An agent that takes a gymnasium environment's own observations and answers with what its `step` takes.

    Args:
        agent: Plans.
        cameras: Names of the cameras, in the order of the channels in `frames`.
    """

    def __init__(self, agent: PlanningAgent | BlockAgent, *, cameras: tuple[str, ...]) -> None:
        self.agent, self.cameras = agent, tuple(cameras)

    @property
    def last(self) -> StepLog | None:
        """What happened in the last step."""
        return self.agent.last

    def reset(self, goal: GymObservation | Observation) -> None:
        """Begin an episode towards the goal image: an observation with the entry `goal`, or an `Observation` of it."""
        if isinstance(goal, Observation):
            self.agent.reset(goal)
        else:
            self.agent.reset(Observation(frames=self._frames(goal, "goal"), cameras=self.cameras))

    def act(self, observation: GymObservation | Observation) -> Any:
        """The next action: a numpy array `(A,)` for an environment's observation, a tensor `B A` for an `Observation`.

        Raises:
            BadObservation: If the observation is not what the agent was made for.
        """
        if isinstance(observation, Observation):
            return self.agent.act(observation)
        felt = observation.get("proprio")
        seen = Observation(
            frames=self._frames(observation, "frames"),
            cameras=self.cameras,
            proprio=None if felt is None else torch.from_numpy(np.asarray(felt))[None, None],
        )
        action: Tensor = self.agent.act(seen)
        return action[0].cpu().numpy().astype(np.float32)

    def _frames(self, observation: GymObservation, name: str) -> Tensor:
        if name not in observation:
            raise BadObservation(f"the observation needs the entry {name!r}, got {', '.join(map(str, observation))}")
        return torch.from_numpy(np.asarray(observation[name]))[None, None]
