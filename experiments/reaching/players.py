"""Agents with a learned or the true world, and policies that plan nothing, as players of episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_mpc.envs.baselines import Policy
from jepa_mpc.envs.oracle_cpu import StatePerception, TrueDynamics, true_goal
from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.errors import BadCheckpoint, choose
from jepa_mpc.experiments.reaching.full_agent import FullAgent
from jepa_mpc.experiments.reaching.pictures import seen_size, shrunk
from jepa_mpc.interfaces import Cost, Planner, Proposal
from jepa_mpc.planners import PLANNERS
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, MpcSettings, Observation
from jepa_mpc.world_model.agents.planning import Agent
from jepa_mpc.world_model.checkpoints.loader import WorldModel
from jepa_mpc.world_model.costs.goal import Effort, SensorGoalDistance, WeightedSum
from jepa_mpc.world_model.memory.window import ShortTermMemory
from jepa_mpc.world_model.policies.goal import GoalPolicy, PolicyProposal


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """How the agents plan.

    Args:
        planner: Name of a planner.
        arguments: Its arguments.
        horizon: Steps that a plan looks ahead.
        effort: Weight of the actions' size against the squared distance (m^2); damps the last steps.
        hold_m: Stand still while the goal seems nearer than this (m).
        deadline_s: Seconds that one plan may take.
    """

    planner: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    horizon: int = 2
    effort: float = 0.0
    hold_m: float = 0.0
    deadline_s: float = float("inf")

    def build(self) -> Planner:
        """The planner.

        Raises:
            UnknownName: If there is no planner of that name.
            ValueError: If it does not take one of the arguments.
        """
        try:
            return choose(PLANNERS, self.planner, "planner")(**self.arguments)
        except TypeError as error:
            raise ValueError(f"planner={self.planner}: {error}") from error

    def mpc(self) -> MpcSettings:
        """The agent's settings; the cost is a squared distance."""
        return MpcSettings(horizon=self.horizon, hold_below=self.hold_m**2, deadline_s=self.deadline_s)


class Player(Protocol):
    """Plays episodes, one at a time."""

    def begin(self, env: ReachEnv) -> None:
        """Take up the goal of a new episode."""

    def act(self, env: ReachEnv) -> NDArray[np.float32]:
        """The next action `(7,)`."""

    def believes_m(self) -> float:
        """How far the player itself thinks the goal is (m), NaN if it has no opinion."""

    def status(self) -> str:
        """How its last search ended, or an empty string."""


class PolicyPlayer:
    """A policy without plans."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def begin(self, env: ReachEnv) -> None:
        """Nothing to take up."""

    def act(self, env: ReachEnv) -> NDArray[np.float32]:
        """The policy's action `(7,)`."""
        return self.policy.act(env)

    def believes_m(self) -> float:
        """No opinion."""
        return float("nan")

    def status(self) -> str:
        """No search."""
        return ""


class ModelPlayer:
    """The agent with a learned world model: it is given images and nothing else.

    Args:
        model: The world model.
        env: Tells the action box.
        settings: How to plan.
        seed: Seed of the planner.
        policy: Proposes plans to the planner, if given.
    """

    def __init__(
        self, model: WorldModel, env: ReachEnv, settings: PlanSettings, *, seed: int, policy: GoalPolicy | None = None
    ) -> None:
        self._know(model, env)
        box = ActionBox(low=env.action_box.low.to(self.device), high=env.action_box.high.to(self.device))
        self.agent = Agent(
            perception=model.perception,
            memory=ShortTermMemory(max_frames=2, action_dim=box.dim),
            dynamics=model.dynamics,
            cost=_cost(self.goal_cost(), settings, box.high),
            planner=settings.build(),
            box=box,
            settings=settings.mpc(),
            generator=generator(seed, "planner", device=self.device),
            proposal=_proposal(policy, model, box),
        )

    def goal_cost(self) -> Cost:
        """What the planner minimises beside the effort."""
        return self.model.goal_cost()

    def _know(self, model: WorldModel, env: ReachEnv) -> None:
        """Take up a world model that fits the robot."""
        size = seen_size(env.image_size, model.interface.image_size)
        model.check_robot(box=env.action_box, cameras=env.cameras, image_size=size, dt_s=env.dt_s)
        if model.interface.robot.get("actions", {}).get("name") == "joint_velocity":
            raise BadCheckpoint("this world model commands joint speeds, this arm takes displacements of its hand")
        self.model = model
        self.device = next(model.objective.parameters()).device
        self._goal_at: NDArray[np.float32] | None = None

    def begin(self, env: ReachEnv) -> None:
        """Encode the goal image."""
        goal = self._here(env.goal())
        self.agent.reset(goal)
        self._goal_at = self._place(self.model.perception(goal)[0, -1])

    def act(self, env: ReachEnv) -> NDArray[np.float32]:
        """Perceive, plan, answer `(7,)`; the observation is all that the agent gets of the environment."""
        return self.agent.act(self._here(env.observation()))[0].cpu().numpy().astype(np.float32)

    def present(self) -> NDArray[np.float32]:
        """Where the model thinks the hand is `(3,)`, in metres up to a constant of the place."""
        assert self.agent.last is not None
        return self._place(self.agent.last.present[0])

    def imagined(self) -> NDArray[np.float32]:
        """Where the last plan is imagined to lead `(H, 3)`, in the same frame; empty before the first plan."""
        last = self.agent.last
        if last is None or last.imagined is None or bool(last.held.all()):
            return self.present()[None]
        return self._place(last.imagined[0])

    def believes_m(self) -> float:
        """Distance of the present state from the goal as the model measures it (m), NaN if it cannot."""
        if self.model.metres is None or self._goal_at is None:
            return float("nan")
        return float(np.linalg.norm(self.present() - self._goal_at))

    def status(self) -> str:
        """How the last search ended, or that the agent holds still."""
        last = self.agent.last
        if last is None or bool(last.held.all()):
            return "hold"
        return last.plan.status[0].value if last.plan is not None else ""

    def _here(self, observation: Observation) -> Observation:
        """The pictures on the model's device, and the joints if the model needs them; it gets nothing else."""
        proprio = None
        if self.model.feels and observation.proprio is not None:
            proprio = self.model.checked_proprio(observation.proprio).to(self.device)
        frames = shrunk(observation.frames.to(self.device), self.model.interface.image_size)
        return Observation(frames=frames, cameras=observation.cameras, proprio=proprio)

    def _place(self, latents: Annotated[Tensor, "... N D"]) -> NDArray[np.float32]:
        """Where states lie `... 3` (m); the origin for all of them if the model has no head that tells."""
        if self.model.metres is None:
            return np.zeros((*latents.shape[:-2], 3), np.float32)
        with torch.no_grad():
            return self.model.metres(latents).cpu().numpy()


class FullPlayer(ModelPlayer):
    """The agent of six modules: it is given images, and the pose of its own hand, by which it keeps to its workspace.

    Args:
        full: What the agent is built of.
        checkpoint: Folder of its (first) world model.
        env: Tells the action box and the workspace.
        settings: How it plans.
        seed: Seed of the planner.
        device: Where the networks run.
    """

    def __init__(
        self, full: FullAgent, checkpoint: Path, env: ReachEnv, settings: PlanSettings, *, seed: int, device: str
    ) -> None:
        self._know(full.world_model(checkpoint, device=device), env)
        self.agent = full.build(
            checkpoint,
            env,
            planner=settings.build(),
            horizon=settings.horizon,
            hold_below=settings.hold_m**2,
            seed=seed,
            device=device,
            deadline_s=settings.deadline_s,
        )

    def _here(self, observation: Observation) -> Observation:
        felt = None if observation.proprio is None else observation.proprio.to(self.device)
        frames = shrunk(observation.frames.to(self.device), self.model.interface.image_size)
        return Observation(frames=frames, cameras=observation.cameras, proprio=felt)


class TruePlayer:
    """The same planner with the simulator as its world and the true distance as its cost: the planner's upper bound.

    A planner that needs gradients cannot plan in a simulator; `settings` then names a sampling planner instead.
    """

    def __init__(self, env: ReachEnv, settings: PlanSettings, *, seed: int) -> None:
        self.dynamics = TrueDynamics(env)
        box = env.action_box
        self.agent = Agent(
            perception=StatePerception(env),
            memory=ShortTermMemory(max_frames=1, action_dim=box.dim),
            dynamics=self.dynamics,
            cost=_cost(SensorGoalDistance(steps="all"), settings, box.high),
            planner=settings.build(),
            box=box,
            settings=settings.mpc(),
            generator=generator(seed, "planner"),
        )

    def begin(self, env: ReachEnv) -> None:
        """Take up the true goal position."""
        self.agent.reset(env.observation(), sensors=true_goal(env))

    def act(self, env: ReachEnv) -> NDArray[np.float32]:
        """Plan in the simulator, answer `(7,)`."""
        return self.agent.act(env.observation())[0].numpy().astype(np.float32)

    def believes_m(self) -> float:
        """The true distance at the last step (m)."""
        assert self.agent.last is not None
        return float(self.agent.last.present_cost[0].clamp_min(0).sqrt())

    def status(self) -> str:
        """How the last search ended."""
        last = self.agent.last
        return last.plan.status[0].value if last is not None and last.plan is not None else ""


def _proposal(policy: GoalPolicy | None, model: WorldModel, box: ActionBox) -> Proposal | None:
    return None if policy is None else PolicyProposal(policy, dynamics=model.dynamics, box=box)


def _cost(goal: Cost, settings: PlanSettings, high: Tensor) -> Cost:
    """Squared distance (m^2) plus the effort, whose unit is the squared longest step."""
    if settings.effort == 0:
        return goal
    return WeightedSum({"goal": (1.0, goal), "effort": (settings.effort, Effort(scale=high))})
