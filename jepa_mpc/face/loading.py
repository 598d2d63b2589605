"""Loads world models and agents by checkpoint name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from jepa_mpc.encoders.hand_points import HandPoints
from jepa_mpc.envs.pick import PickEnv
from jepa_mpc.envs.true_dynamics import true_dynamics
from jepa_mpc.errors import BadCheckpoint, BadObservation, choose
from jepa_mpc.face.agents import CalibratedSettings, RobotFacts, calibrated_agent, planning_agent
from jepa_mpc.face.agents import true_dynamics_agent as simulator_agent
from jepa_mpc.face.handling.seeing_agents import SEARCH, handling_agent
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.places import CONFIGS
from jepa_mpc.seeding import generator
from jepa_mpc.step_log import StepLog
from jepa_mpc.trajectories.robot_adapter import RobotAdapter, RobotAgent, load_robot_adapter
from jepa_mpc.types import ActionBox, Observation
from jepa_mpc.world_model.agents.blocks import BlockAgent
from jepa_mpc.world_model.agents.handling_eyes import OBJECT
from jepa_mpc.world_model.agents.planning import PlanningAgent
from jepa_mpc.world_model.checkpoints.keypoints import load_hand_points
from jepa_mpc.world_model.checkpoints.loader import load_world_model as load_folder
from jepa_mpc.world_model.dynamics.model import WorldModel

AgentKind = Literal["calibrated", "simple", "handling"]
GymObservation = Mapping[str, NDArray[Any]]


def load_world_model(checkpoint: str | Path, *, device: torch.device | str = "cpu") -> WorldModel:
    """Load a trained world model.

    Args:
        checkpoint: The name of a shipped one (`reach_wide`), a folder, or `hf://owner/name`.
        device: Device of its networks.

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
    planner: str | Mapping[str, Any] | None = None,
    horizon: int | None = None,
    effort: float | None = None,
    hold_m: float = 0.0,
    seed: int | Sequence[int] = 0,
    device: torch.device | str = "cpu",
) -> EnvironmentAgent:
    """Build an agent that plans in a trained world model, for one robot.

    Args:
        robot: An environment, with or without gymnasium wrappers, or any object with `action_box`, `cameras`,
            `image_size` and `dt_s`.
        checkpoint: The world model, or its location (see `load_world_model`); by default the shipped one for these
            cameras.
        kind: "calibrated" detects the hand in the images and corrects the goal online, "simple" only plans, "handling"
            also tracks an object (`pick-v1`). By default handling if the world model reads objects, otherwise
            calibrated if it has a position head and the robot has two cameras.
        keypoints: The hand keypoint detector of the calibrated agent, or its location.
        planner: The name of a file in configs/planner, or a mapping with `_target_` and arguments; by default
            `cem_short`, for handling iCEM with 3 rounds of 128 plans.
        horizon: Planning horizon in steps; by default 2, for handling 4.
        effort: Weight of the squared action size relative to the squared distance (m^2), 0.05 by default; handling has
            a cost of its own.
        hold_m: Hold still while the estimated distance to the goal is below this value (m); not for handling.
        seed: Seed of the planner, or one per world; each world then gets the plans that it gets alone.
        device: Device of the networks.

    Raises:
        BadCheckpoint: If a checkpoint cannot be read, or was trained for another robot.
        UnknownName: If there is no such planner.
        ValueError: If handling is given `effort` or `hold_m`.
    """
    robot = getattr(robot, "unwrapped", robot)
    model = checkpoint or shipped_for(robot.cameras)
    if not isinstance(model, WorldModel):
        model = load_world_model(model, device=device)
    kind = known_kind(kind or usual_kind(model))
    if kind == "handling":
        if effort is not None or hold_m:
            raise ValueError("an agent that handles has a cost of its own: leave out effort and hold_m")
        return _handling(model, robot, planner=planner, horizon=horizon, seed=seed)
    settings = plan_settings(
        planner or "cem_short",
        horizon=2 if horizon is None else horizon,
        effort=0.05 if effort is None else effort,
        hold_m=hold_m,
    )
    if kind == "simple":
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


def shipped_for(cameras: Sequence[str]) -> str:
    """Name of the shipped world model that sees these cameras."""
    if "wrist" in cameras:
        return "pick"
    return "reach_wide" if len(cameras) > 1 else "reach_one_camera"


def _handling(
    model: WorldModel,
    robot: RobotFacts,
    *,
    planner: str | Mapping[str, Any] | None,
    horizon: int | None,
    seed: int | Sequence[int],
) -> EnvironmentAgent:
    """The agent that handles objects; it plays one world, on the CPU."""
    if not isinstance(robot, PickEnv):
        raise BadCheckpoint(
            f"this world model handles objects in pick-v1, got {type(robot).__name__}: kind='simple' or 'calibrated' "
            "only moves the hand"
        )
    if isinstance(seed, Sequence) or model.device.type != "cpu":
        raise ValueError("an agent that handles plays one world on the CPU: give one seed and no other device")
    agent = handling_agent(
        model,
        robot,
        generator=generator(seed, "planner"),
        planner=None if planner is None else plan_settings(planner).build(),
        horizon=SEARCH.horizon if horizon is None else horizon,
    )
    return EnvironmentAgent(agent, cameras=robot.cameras)


def known_kind(kind: str) -> AgentKind:
    """A kind of agent, checked.

    Raises:
        UnknownName: If there is no such kind.
    """
    known: dict[str, AgentKind] = {name: name for name in get_args(AgentKind)}
    return choose(known, kind, "kind of agent")


def usual_kind(model: WorldModel) -> AgentKind:
    """The default agent: handling, if the world model reads objects; calibrated, if it has a head and two cameras."""
    if OBJECT in model.readings:
        return "handling"
    return "calibrated" if len(model.interface.cameras) > 1 and model.position_head is not None else "simple"


@dataclass(frozen=True, kw_only=True)
class AdaptedRobot:
    """A robot behind its adapter, as an argument of `load_agent`.

    Args:
        adapter: Translates images, columns and commands.
        image_size: Width and height of the world model's images (px).
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
    """Build an agent for a real robot: it takes the robot's images and columns and returns the robot's own commands.

    Args:
        checkpoint: The world model (see `load_world_model`), with the robot adapter of its training log.
        kind: As in `load_agent`. The calibrated agent gets camera images of at least 128 px, whatever the size of the
            world model's.
        box: Limits of one action; by default the range in the training log.
        device: Device of the networks.
        **settings: See `load_agent`.

    Raises:
        BadCheckpoint: If the checkpoint cannot be read or has no robot adapter.
        ValueError: If no limits are given and the checkpoint lacks the range of its log.
    """
    model = load_world_model(checkpoint, device=device)
    kind = known_kind(kind or usual_kind(model))
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
    seed: int | Sequence[int] = 0,
) -> PlanningAgent:
    """Build an agent that plans in the simulator: an upper bound for world models, and a first test of a task.

    Args:
        env: A built-in or user-defined task (`envs.task.PlannableEnv`); its full state is read.
        planner: See `load_agent`.
        horizon: Planning horizon in steps; by default the task's.
        effort: Weight of the action size relative to the task's cost.
        dynamics: "simulator" (MuJoCo on the CPU), "warp" (MuJoCo Warp) or "stepping" (gymnasium environments); by
            default chosen by the task.
        num_threads: CPU threads of "simulator".
        seed: Seed of the planner, or one per world; each world then gets the plans that it gets alone.

    Raises:
        UnknownName: If there is no such planner or dynamics.
        MissingPackage: If the package of the dynamics is not installed.
    """
    settings = plan_settings(planner, horizon=env.horizon if horizon is None else horizon, effort=effort)
    world = true_dynamics(env, dynamics, num_threads=num_threads)
    return simulator_agent(env, settings, seed=seed, dynamics=world, cost=env.cost())


def plan_settings(planner: str | Mapping[str, Any], **settings: Any) -> PlanSettings:
    """Planner settings from a file in configs/planner, or from its entries.

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
    """Wraps an agent for gymnasium: takes the environment's observations and returns arguments of its `step`.

    Args:
        agent: The wrapped agent.
        cameras: Names of the cameras, in the order of the channels in `frames`.
    """

    def __init__(self, agent: PlanningAgent | BlockAgent, *, cameras: tuple[str, ...]) -> None:
        self.agent, self.cameras = agent, tuple(cameras)

    @property
    def last(self) -> StepLog | None:
        """The log of the last step."""
        return self.agent.last

    def reset(self, goal: GymObservation | Observation) -> None:
        """Begin an episode with a goal image: an observation with the entry `goal`, or the goal as an `Observation`."""
        if isinstance(goal, Observation):
            self.agent.reset(goal)
        else:
            self.agent.reset(Observation(frames=self._frames(goal, "goal"), cameras=self.cameras))

    def act(self, observation: GymObservation | Observation) -> Any:
        """The next action: a numpy array `(A,)` for an environment's observation, a tensor `B A` for an `Observation`.

        Raises:
            BadObservation: If the observation does not fit the agent.
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
