"""Agents put together: from a world model, a robot and settings to something that acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

from torch import Tensor

from jepa_mpc.costs import PlanCost
from jepa_mpc.encoders.hand_points import HandPoints
from jepa_mpc.envs.costs import squared, task_cost
from jepa_mpc.envs.oracle_cpu import SimulatorPerception, TrueDynamics, true_goal
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.interfaces import Cost, Dynamics, GoalReader, Perception, Planner, Proposal
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, Observation
from jepa_mpc.world_model.agents.blocks import BlockAgent, BlockRobot
from jepa_mpc.world_model.agents.goals import CalibratedGoal, EncodedGoal, measured_position, needs_position_head
from jepa_mpc.world_model.agents.planning import Felt, PlanningAgent, no_proprio
from jepa_mpc.world_model.agents.reactive import ReactiveAgent
from jepa_mpc.world_model.agents.servo import ServoAgent
from jepa_mpc.world_model.costs.goal import PositionDistance
from jepa_mpc.world_model.dynamics.model import WorldModel
from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer
from jepa_mpc.world_model.perception.resize import DownsampledPerception, seen_size
from jepa_mpc.world_model.policies.goal import GoalPolicy, PolicyProposal

LEAST_PX = 8
WINDOW = 2
"""States that an agent keeps for its world model."""


class RobotFacts(Protocol):
    """What an agent must know of the robot that it acts for; every environment of ours tells it."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras, in the order of their channels."""

    @property
    def image_size(self) -> int:
        """Width and height of the pictures in pixels."""

    @property
    def dt_s(self) -> float:
        """Seconds per action."""

    @property
    def action_box(self) -> ActionBox:
        """Bounds of one action."""


def planning_agent(
    model: WorldModel,
    robot: RobotFacts,
    settings: PlanSettings,
    *,
    seed: int,
    policy: GoalPolicy | None = None,
    proposal: Proposal | None = None,
    goals: GoalReader | None = None,
    cost: Cost | None = None,
    planner: Planner | None = None,
) -> PlanningAgent | BlockAgent:
    """The simple agent: it plans in a learned world model, and is given images and nothing else.

    Args:
        model: The world model.
        robot: What it acts for.
        settings: How it plans.
        seed: Seed of the planner.
        policy: Proposes plans to the planner, if given.
        proposal: Likewise, any other source of plans.
        goals: Reads the goal; by default the goal image is encoded.
        cost: What it minimises beside the effort; by default the model's own distance from the goal.
        planner: Searches for plans; by default the one that `settings` names.

    Raises:
        BadCheckpoint: If the model was trained for another robot.
    """
    blocks = 1 if hasattr(robot, "adapter") else model.steps_per_action  # an adapter takes whole blocks
    if blocks > 1:
        robot = in_blocks(robot, blocks)
    check_robot(model, robot)
    box = robot.action_box.to(model.device)
    if policy is not None:
        proposal = PolicyProposal(policy, dynamics=model.dynamics, box=box)
    perception = perception_for(model)
    agent = PlanningAgent(
        perception=perception,
        memory=ReplayBuffer(capacity=WINDOW, window=WINDOW, action_dim=box.dim),
        dynamics=model.dynamics,
        cost=settings.cost(model.goal_cost if cost is None else cost, high=box.high),
        planner=settings.build() if planner is None else planner,
        box=box,
        settings=settings.mpc(),
        generator=generator(seed, "planner", device=model.device),
        proposal=proposal,
        goals=EncodedGoal(perception) if goals is None else goals,
        position_head=model.position_head,
        felt=felt_by(model),
    )
    return agent if blocks == 1 else BlockAgent(agent, steps=blocks)


def in_blocks(robot: RobotFacts, steps: int) -> BlockRobot:
    """A robot as a world model sees it that takes several of its actions as one."""
    return BlockRobot(
        cameras=robot.cameras,
        image_size=robot.image_size,
        dt_s=steps * robot.dt_s,
        action_box=robot.action_box.blocked(steps),
        embodiment=getattr(robot, "embodiment", ""),
    )


@dataclass(frozen=True, kw_only=True)
class CalibratedSettings:
    """How the calibrated agent looks for the hand; the entries of configs/agent/calibrated.yaml.

    Args:
        place: How the hand's way is known: "commanded" adds up the agent's own commands, "felt" takes the measured
            pose.
        camera_px: Least size of the camera's pictures; the world model gets them at its own.
        sizes: In which sizes the hand is looked for (px).

    Raises:
        ValueError: If there is no such way of knowing the hand's place, or a size is no number of pixels.
    """

    place: str = "commanded"
    camera_px: int = 128
    sizes: Sequence[int] = (64, 96, 128)

    def __post_init__(self) -> None:
        if self.place not in ("commanded", "felt"):
            raise ValueError(f"place must be commanded or felt, got {self.place!r}")
        if not self.sizes or min(self.camera_px, *self.sizes) < 16:
            raise ValueError(f"camera_px and sizes must be pixels from 16, got {self.camera_px} and {self.sizes}")

    def picture_px(self, model_px: int) -> int:
        """Size of the camera's pictures: a whole multiple of what the world model sees.

        Raises:
            BadCheckpoint: If the world model says that it sees next to nothing.
        """
        if model_px < LEAST_PX:
            raise BadCheckpoint(f"the world model sees pictures of {model_px} px: need image_size >= {LEAST_PX}")
        return model_px * ceil(self.camera_px / model_px)


def calibrated_agent(
    calibrated: CalibratedSettings,
    model: WorldModel,
    keypoints: HandPoints,
    robot: RobotFacts,
    settings: PlanSettings,
    *,
    seed: int,
    position_axes: tuple[int, ...] | None = None,
) -> PlanningAgent | BlockAgent:
    """The agent that plans towards a goal position, estimated with keypoints of the hand and calibrated on the way.

    Args:
        calibrated: How it looks for the hand.
        model: The world model, with a position head.
        keypoints: Finds the hand in pictures.
        robot: What it acts for.
        settings: How it plans.
        seed: Seed of the planner.
        position_axes: Where the hand's position lies in the proprioception, for `place="felt"`.

    Raises:
        ValueError: If the position shall be felt and it is not said where it lies.
        BadCheckpoint: If the world model has no position head, or was trained for another robot.
    """
    goals = calibrated_goal(calibrated, model, keypoints, position_axes=position_axes)
    cost = PlanCost(PositionDistance(needs_position_head(model.position_head)))
    return planning_agent(model, robot, settings, seed=seed, goals=goals, cost=cost)


def calibrated_goal(
    calibrated: CalibratedSettings,
    model: WorldModel,
    keypoints: HandPoints,
    *,
    position_axes: tuple[int, ...] | None = None,
) -> CalibratedGoal:
    """The goal's position, estimated with keypoints of the hand and calibrated on the way; see `calibrated_agent`.

    Raises:
        BadCheckpoint: If the world model has no position head.
        ValueError: If the position shall be felt and it is not said where it lies.
    """
    head = needs_position_head(model.position_head)
    if calibrated.place == "felt" and position_axes is None:
        raise ValueError("place=felt needs position_axes: where the hand's position lies in the proprioception")
    return CalibratedGoal(
        perception_for(model),
        position_head=head,
        keypoints=keypoints.to(model.device),
        sizes=tuple(int(size) for size in calibrated.sizes),
        place=measured_position(position_axes) if calibrated.place == "felt" and position_axes else None,
    )


def servo_agent(model: WorldModel, robot: RobotFacts, *, goals: GoalReader | None = None) -> ServoAgent:
    """The control without planner and predictor: a share of the way towards where the goal is read to be.

    Args:
        model: The world model whose perception and position head it uses.
        robot: What it acts for.
        goals: Reads the goal; by default the goal image is encoded.

    Raises:
        BadCheckpoint: If the model has no position head, or was trained for another robot.
    """
    check_robot(model, robot)
    perception = perception_for(model)
    return ServoAgent(
        perception=perception,
        goals=EncodedGoal(perception) if goals is None else goals,
        position_head=needs_position_head(model.position_head),
        box=robot.action_box.to(model.device),
    )


def true_dynamics_agent(
    env: Any,
    settings: PlanSettings,
    *,
    seed: int,
    dynamics: Dynamics | None = None,
    cost: Cost | None = None,
    planner: Planner | None = None,
) -> PlanningAgent:
    """The same planner with the simulator as its world: the upper bound of any learned model.

    A planner that needs gradients cannot plan in a simulator; `settings` then names a sampling planner instead.

    Args:
        env: The environment, at the start of an episode; its full state is read.
        settings: How it plans.
        seed: Seed of the planner.
        dynamics: True dynamics of the environment; by default those on the CPU.
        cost: What it minimises beside the effort; by default the squared distance of the sensors from the goal's.
        planner: Searches for plans; by default the one that `settings` names.
    """
    box, perception = env.action_box, SimulatorPerception(env)
    return PlanningAgent(
        perception=perception,
        memory=ReplayBuffer(capacity=1, window=1, action_dim=box.dim),
        dynamics=TrueDynamics(env) if dynamics is None else dynamics,
        cost=settings.cost(task_cost(squared) if cost is None else cost, high=box.high),
        planner=settings.build() if planner is None else planner,
        box=box,
        settings=settings.mpc(),
        generator=generator(seed, "planner"),
        goals=EncodedGoal(perception, sensors=lambda: true_goal(env)),
    )


def reactive_agent(policy: GoalPolicy, model: WorldModel, robot: RobotFacts) -> ReactiveAgent:
    """A policy alone: it is given images and nothing else, and imagines nothing.

    Args:
        policy: The policy.
        model: The world model that it belongs to; perceives, and tells how far the goal seems.
        robot: What it acts for.

    Raises:
        BadCheckpoint: If the model was trained for another robot.
    """
    check_robot(model, robot)
    return ReactiveAgent(
        perception=perception_for(model),
        policy=policy,
        box=robot.action_box.to(model.device),
        position_head=model.position_head,
    )


def check_robot(model: WorldModel, robot: RobotFacts) -> None:
    """Refuse a robot that the model was not trained for, by its name where it has one (`embodiment`), too.

    A camera may be finer by a whole factor.

    Raises:
        BadCheckpoint: With what the model knows and what the robot has.
    """
    size = seen_size(robot.image_size, model.interface.image_size)
    model.check_robot(
        box=robot.action_box,
        cameras=robot.cameras,
        image_size=size,
        dt_s=robot.dt_s,
        embodiment=getattr(robot, "embodiment", ""),
    )
    if model.interface.robot.get("actions", {}).get("name") == "joint_velocity" and not hasattr(robot, "adapter"):
        raise BadCheckpoint("this world model commands joint speeds, this arm takes displacements of its hand")


def perception_for(model: WorldModel) -> Perception:
    """The model's perception behind cameras that may be finer than its own by a whole factor."""
    return DownsampledPerception(model.perception, image_size=model.interface.image_size)


def felt_by(model: WorldModel) -> Felt:
    """Which proprioception the model is given: the newest one, checked, or none."""
    if not model.needs_proprio:
        return no_proprio

    def felt(observation: Observation) -> Tensor | None:
        if observation.proprio is None:
            return None
        model.check_proprio(observation.proprio)
        return observation.proprio[:, -1]

    return felt
