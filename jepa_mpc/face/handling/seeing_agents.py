"""Agents that handle from images: planning in the world model, and the controls with the same perception."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_mpc.costs import MeanAndEnd, PlanCost, WeightedSum
from jepa_mpc.envs.costs import squared_length, task_cost
from jepa_mpc.envs.handling_cost import handling
from jepa_mpc.envs.pick import PickEnv
from jepa_mpc.envs.plant import Array
from jepa_mpc.envs.servo import RelativeServo, Servo, StillWorld
from jepa_mpc.face.handling.handling_tasks import AT_END, EFFORT, hand_and_grip
from jepa_mpc.face.handling.state_agents import Planning
from jepa_mpc.interfaces import Cost, Dynamics, Planner
from jepa_mpc.step_log import StepLog
from jepa_mpc.types import MpcSettings, Observation
from jepa_mpc.world_model.agents.handling_eyes import HandlingEyes
from jepa_mpc.world_model.agents.planning import PlanningAgent
from jepa_mpc.world_model.agents.subgoals import Aiming
from jepa_mpc.world_model.costs.goal import GoalDistance
from jepa_mpc.world_model.dynamics.model import WorldModel
from jepa_mpc.world_model.dynamics.read_out import StillLatents
from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer

NEAR_M = 0.03
"""Where agents that see take an object to be at its goal: their readings err by 2 cm, and 5 cm are asked for."""
WORLD_MODEL, FROZEN = "world model", "frozen random encoder"
SEARCH = Planning(horizon=4, num_samples=128, num_iterations=3, answer="mean")


class Seen:
    """Stands in for the task, for servos and the still world: everything is estimated from the images of one episode.

    Args:
        env: The task.
        model: The world model that reads the images.
    """

    def __init__(self, env: PickEnv, model: WorldModel) -> None:
        low, high = (torch.from_numpy(corner).float() for corner in env.arm.workspace())
        self.eyes = HandlingEyes(model, low=low, high=high, widest_m=float(env.arm.robot.largest_opening_m))
        self.plant, self.action_box = env.plant, env.action_box

    def plant_sensors(self) -> Array:
        """The sensors as estimated from the present images."""
        return self.eyes.now()[0].double().numpy()

    def goal_sensors(self) -> Array:
        """The sensors as estimated from the goal image."""
        found = self.eyes.goal().sensors
        assert found is not None
        return found[0].double().numpy()


def handling_agent(
    model: WorldModel,
    env: PickEnv,
    *,
    generator: torch.Generator,
    planner: Planner | None = None,
    horizon: int = SEARCH.horizon,
    cost: Cost | None = None,
    world: Callable[[Seen], Dynamics] | None = None,
) -> PlanningAgent:
    """The agent that handles objects: it plans in the world model's latents towards what it reads of the goal image.

    Args:
        model: A world model of handling (`system=handling`).
        env: The task, for its workspace and actions.
        generator: Random numbers of the planner.
        planner: Searches for plans; by default `SEARCH`.
        horizon: Steps that a plan looks ahead.
        cost: Cost of plans; by default the distances of object (beyond `NEAR_M`), hand and grip from where they are in
            the goal image.
        world: Makes the dynamics in which plans are rolled out; by default the world model's.

    Raises:
        BadCheckpoint: If the model has not learned to handle, or sees other cameras.
    """
    model.check_robot(
        box=None, cameras=env.cameras, image_size=env.image_size, dt_s=env.dt_s, embodiment=env.embodiment
    )
    seen = Seen(env, model)
    return PlanningAgent(
        perception=model.perception,
        memory=ReplayBuffer(capacity=1, window=1, action_dim=env.action_box.dim),
        dynamics=seen.eyes.dynamics if world is None else world(seen),
        cost=task_cost(handling(near_m=NEAR_M), at_end=AT_END, effort=EFFORT) if cost is None else cost,
        planner=SEARCH.planner() if planner is None else planner,
        box=env.action_box,
        settings=MpcSettings(horizon=horizon),
        generator=generator,
        goals=seen.eyes,
        position_head=model.position_head,
        felt=seen.eyes.known,
    )


class ServoTo:
    """An agent that lets a servo act on what images show.

    Args:
        model: The world model that reads the images.
        seen: What is read.
        servo: Acts on it.
    """

    last: StepLog | None = None

    def __init__(self, model: WorldModel, seen: Seen, servo: Servo) -> None:
        self.perception, self.eyes, self.servo = model.perception, seen.eyes, servo

    def reset(self, goal: Observation) -> None:
        """Begin an episode."""
        self.eyes.reset(goal)

    def aim(self, goal: Observation) -> None:
        """Take up another goal image."""
        self.eyes.aim(goal)

    def act(self, observation: Observation) -> Annotated[Tensor, "1 A"]:
        """The next action."""
        self.eyes.update(observation, self.perception(observation)[:, -1])
        action = torch.from_numpy(self.servo.act())[None]
        self.eyes.did(action)
        return action


class Looking:
    """A policy for one episode: shows the agent each goal image when its time comes, and the present images.

    Args:
        env: The task, after its reset.
        agent: Acts.
    """

    def __init__(self, env: PickEnv, agent: Aiming) -> None:
        self.env, self.agent = env, agent
        self._shown = ""

    def act(self, env: object = None) -> NDArray[np.float32]:
        """The action `(A,)`."""
        name = self.env.sub_goal().name
        if name != self._shown:
            take_up = self.agent.aim if self._shown else self.agent.reset
            take_up(self.env.goal())
            self._shown = name
        return self.agent.act(self.env.observation())[0].numpy().astype(np.float32)


Maker = Callable[[PickEnv, WorldModel, Planning, torch.Generator], Looking]


def planning(*, cost: Cost | None = None, world: Callable[[Seen], Dynamics] | None = None) -> Maker:
    """Agents that plan, with another cost or in another world."""

    def make(env: PickEnv, model: WorldModel, settings: Planning, generator: torch.Generator) -> Looking:
        search: Mapping[str, Any] = {"planner": settings.planner(), "horizon": settings.horizon}
        return Looking(env, handling_agent(model, env, generator=generator, cost=cost, world=world, **search))

    return make


def following(kind: type[Servo]) -> Maker:
    """Agents that take proportional steps."""

    def make(env: PickEnv, model: WorldModel, settings: Planning, generator: torch.Generator) -> Looking:
        seen = Seen(env, model)
        return Looking(env, ServoTo(model, seen, kind(seen)))

    return make


HANDS_ALONE = task_cost(hand_and_grip(), at_end=AT_END, effort=EFFORT)
IN_LATENTS = WeightedSum(
    {"goal": (1.0, PlanCost(GoalDistance(), MeanAndEnd(AT_END))), "effort": (EFFORT, PlanCost(squared_length))}
)

SEEING: Mapping[str, Maker] = {
    WORLD_MODEL: planning(),
    FROZEN: planning(),
    "still world": planning(world=StillWorld),
    "blind": planning(world=StillWorld, cost=HANDS_ALONE),
    "servo": following(Servo),
    "relative servo": following(RelativeServo),
}
"""Agents that see pictures alone, by name; `FROZEN` is given another world model."""

ABLATIONS: Mapping[str, Maker] = {
    "predictor off": planning(world=lambda seen: seen.eyes.dynamics.over(StillLatents())),
    "object term off": planning(cost=HANDS_ALONE),
    "latent distance": planning(cost=IN_LATENTS),
}
"""The world model without its predictor (heads and filter stay), or with another cost: without the object, or the
distance of latents without any head."""
