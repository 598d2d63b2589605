"""Assembly of agents from a world model, a robot and settings."""

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
from jepa_mpc.seeding import generators
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
"""Number of past states that an agent keeps for its world model."""


class RobotFacts(Protocol):
    """What an agent needs to know about its robot; all our environments provide it."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras, in the order of their channels."""

    @property
    def image_size(self) -> int:
        """Width and height of the camera images in pixels."""

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
    seed: int | Sequence[int],
    policy: GoalPolicy | None = None,
    proposal: Proposal | None = None,
    goals: GoalReader | None = None,
    cost: Cost | None = None,
    planner: Planner | None = None,
) -> PlanningAgent | BlockAgent:
    """The simple agent: it plans in a learned world model from images alone.

    Args:
        model: The world model.
        robot: The robot to act for.
        settings: Planner settings.
        seed: Seed of the planner, or one per world; each world then gets the plans that it gets alone.
        policy: Proposes plans to the planner, if given.
        proposal: Any other source of candidate plans, if given.
        goals: Reads the goal; by default it encodes the goal image.
        cost: Cost to minimise in addition to the effort; by default the model's own distance to the goal.
        planner: By default the planner named in `settings`.

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
        generator=generators(seed, "planner", device=model.device),
        proposal=proposal,
        goals=EncodedGoal(perception) if goals is None else goals,
        position_head=model.position_head,
        felt=felt_by(model),
    )
    return agent if blocks == 1 else BlockAgent(agent, steps=blocks)


def in_blocks(robot: RobotFacts, steps: int) -> BlockRobot:
    """A robot seen by a world model that takes `steps` of its actions as one."""
    return BlockRobot(
        cameras=robot.cameras,
        image_size=robot.image_size,
        dt_s=steps * robot.dt_s,
        action_box=robot.action_box.blocked(steps),
        embodiment=getattr(robot, "embodiment", ""),
    )


@dataclass(frozen=True, kw_only=True)
class CalibratedSettings:
    """Hand detection settings of the calibrated agent; the entries of configs/agent/calibrated.yaml.

    Args:
        place: Source of the hand position: "commanded" sums the agent's own commands, "felt" uses proprioception.
        camera_px: Minimum size of the camera images; the world model gets them at its own size.
        sizes: Image sizes in which the hand is detected (px).

    Raises:
        ValueError: If `place` is unknown, or a size is not a valid number of pixels.
    """

    place: str = "commanded"
    camera_px: int = 128
    sizes: Sequence[int] = (64, 96, 128)

    def __post_init__(self) -> None:
        if self.place not in ("commanded", "felt"):
            raise ValueError(f"place must be commanded or felt, got {self.place!r}")
        if not self.sizes or min(self.camera_px, *self.sizes) < 16:
            raise ValueError(f"camera_px and sizes must be at least 16 pixels, got {self.camera_px} and {self.sizes}")

    def picture_px(self, model_px: int) -> int:
        """Size of the camera images: a multiple of the world model's image size.

        Raises:
            BadCheckpoint: If the world model's image size is too small.
        """
        if model_px < LEAST_PX:
            raise BadCheckpoint(f"the world model takes images of {model_px} px: need image_size >= {LEAST_PX}")
        return model_px * ceil(self.camera_px / model_px)


def calibrated_agent(
    calibrated: CalibratedSettings,
    model: WorldModel,
    keypoints: HandPoints,
    robot: RobotFacts,
    settings: PlanSettings,
    *,
    seed: int | Sequence[int],
    position_axes: tuple[int, ...] | None = None,
) -> PlanningAgent | BlockAgent:
    """The agent that plans to a goal position, estimated from hand keypoints with online calibration.

    Args:
        calibrated: Hand detection settings.
        model: The world model, with a position head.
        keypoints: Detects the hand in images.
        robot: The robot to act for.
        settings: Planner settings.
        seed: Seed of the planner.
        position_axes: Indices of the hand position in the proprioception, for `place="felt"`.

    Raises:
        ValueError: If `place` is "felt" and `position_axes` is missing.
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
    """The goal position, estimated from hand keypoints with online calibration; see `calibrated_agent`.

    Raises:
        BadCheckpoint: If the world model has no position head.
        ValueError: If `place` is "felt" and `position_axes` is missing.
    """
    head = needs_position_head(model.position_head)
    if calibrated.place == "felt" and position_axes is None:
        raise ValueError("place=felt needs position_axes, the indices of the hand position in the proprioception")
    return CalibratedGoal(
        perception_for(model),
        position_head=head,
        keypoints=keypoints.to(model.device),
        sizes=tuple(int(size) for size in calibrated.sizes),
        place=measured_position(position_axes) if calibrated.place == "felt" and position_axes else None,
    )


def servo_agent(model: WorldModel, robot: RobotFacts, *, goals: GoalReader | None = None) -> ServoAgent:
    """Proportional control without planner and predictor: a step towards the estimated goal position.

    Args:
        model: The world model whose perception and position head it uses.
        robot: The robot to act for.
        goals: Reads the goal; by default it encodes the goal image.

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
    seed: int | Sequence[int],
    dynamics: Dynamics | None = None,
    cost: Cost | None = None,
    planner: Planner | None = None,
) -> PlanningAgent:
    """The same planner with the simulator as its dynamics: the upper bound of any learned model.

    Planners that need gradients cannot plan in a simulator; use a sampling planner in `settings`.

    Args:
        env: The environment, or several side by side; its full state is read.
        settings: Planner settings.
        seed: Seed of the planner, or one per world; each world then gets the plans that it gets alone.
        dynamics: True dynamics of the environment; by default those on the CPU.
        cost: Cost to minimise in addition to the effort; by default the squared distance of the sensors to the goal's.
        planner: By default the planner named in `settings`.
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
        generator=generators(seed, "planner"),
        goals=EncodedGoal(perception, sensors=lambda: true_goal(env)),
    )


def reactive_agent(policy: GoalPolicy, model: WorldModel, robot: RobotFacts) -> ReactiveAgent:
    """A policy without planning: it acts on images alone and predicts nothing.

    Args:
        policy: The policy.
        model: The world model that it was trained for; it perceives and estimates the distance to the goal.
        robot: The robot to act for.

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
    """Refuse a robot that the model was not trained for; compares the name (`embodiment`), too, where known.

    Camera images may be larger by an integer factor.

    Raises:
        BadCheckpoint: Names what the model expects and what the robot has.
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
        raise BadCheckpoint("this world model commands joint velocities, this arm takes end-effector displacements")


def perception_for(model: WorldModel) -> Perception:
    """The model's perception for cameras whose images may be larger by an integer factor."""
    return DownsampledPerception(model.perception, image_size=model.interface.image_size)


def felt_by(model: WorldModel) -> Felt:
    """Proprioception to pass to the model: the newest one, checked, or none."""
    if not model.needs_proprio:
        return no_proprio

    def felt(observation: Observation) -> Tensor | None:
        if observation.proprio is None:
            return None
        model.check_proprio(observation.proprio)
        return observation.proprio[:, -1]

    return felt
