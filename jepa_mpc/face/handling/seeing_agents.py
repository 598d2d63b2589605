"""Agents that pick from camera images: planning in the world model, and the controls of the headroom table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc.costs import MeanAndEnd, PlanCost, WeightedSum
from jepa_mpc.envs.costs import squared_length, task_cost
from jepa_mpc.envs.handling_cost import handling
from jepa_mpc.envs.pick import PickEnv
from jepa_mpc.envs.plant import Array, Plant
from jepa_mpc.envs.servo import RelativeServo, Servo, StillWorld
from jepa_mpc.face.handling.handling_tasks import AT_END, EFFORT, hand_and_grip
from jepa_mpc.face.handling.state_agents import Planned, Planning
from jepa_mpc.interfaces import Cost, Dynamics
from jepa_mpc.types import ActionBox, Costs, Plans
from jepa_mpc.world_model.agents.handling_eyes import HandlingEyes
from jepa_mpc.world_model.costs.goal import GoalDistance
from jepa_mpc.world_model.dynamics.model import WorldModel
from jepa_mpc.world_model.dynamics.read_out import StillLatents

WORLD_MODEL, FROZEN = "world model", "frozen random encoder"


class Seen:
    """Stands in for the task, for planners and servos, with everything estimated from pictures of one episode.

    Args:
        env: The task.
        model: The world model that reads the pictures.
        cost: Cost of plans; by default the distances of object, hand and grip from where the goal image shows them.
        world: Makes the dynamics in which plans are rolled out; by default the world model's.
    """

    def __init__(
        self,
        env: PickEnv,
        model: WorldModel,
        *,
        cost: Cost | None = None,
        world: Callable[[Seen], Dynamics] | None = None,
    ) -> None:
        low, high = (torch.from_numpy(corner).float() for corner in env.arm.workspace())
        self.eyes = HandlingEyes(model, low=low, high=high, widest_m=float(env.arm.robot.largest_opening_m))
        self.env, self._shown = env, ""
        self.cost: Cost = cost or task_cost(handling(), at_end=AT_END, effort=EFFORT)
        self.dynamics: Dynamics = self.eyes.dynamics if world is None else world(self)

    def look(self) -> None:
        """Encode the present pictures, and the goal image when the sub-goal has changed."""
        if self.env.sub_goal().name != self._shown:
            self._shown = self.env.sub_goal().name
            self.eyes.aim(self.env.goal())
        self.eyes.look(self.env.observation(), torch.from_numpy(self.env.gripper_command_m()))

    @property
    def plant(self) -> Plant:
        """Names of the sensors."""
        return self.env.plant

    @property
    def box(self) -> ActionBox:
        """Bounds of one action."""
        return self.env.action_box

    action_box = box

    def plant_sensors(self) -> Array:
        """The sensors as estimated from the present pictures."""
        return self.eyes.now()[0].double().numpy()

    def goal_sensors(self) -> Array:
        """The sensors as estimated from the goal image."""
        found = self.eyes.goal().sensors
        assert found is not None
        return found[0].double().numpy()

    def objective(self) -> Callable[[Plans], Costs]:
        """The cost of plans `1 S H A` from the present on."""
        context, goal = self.eyes.context(), self.eyes.goal()

        def evaluate(plans: Plans) -> Costs:
            return self.cost(self.dynamics.rollout(context, plans), plans, goal).to(plans.dtype)

        return evaluate


class Acting(Protocol):
    """A policy that acts on the last pictures that were encoded."""

    def act(self) -> NDArray[np.float32]:
        """The next action `(7,)`."""


@dataclass(frozen=True)
class Looking:
    """A policy with its eyes: encodes the present pictures, then acts."""

    seen: Seen
    policy: Acting

    def act(self, env: object = None) -> NDArray[np.float32]:
        """The action `(7,)`."""
        self.seen.look()
        return self.policy.act()


Maker = Callable[[PickEnv, WorldModel, Planning, torch.Generator], Looking]


def planning(*, cost: Cost | None = None, world: Callable[[Seen], Dynamics] | None = None) -> Maker:
    """Makes agents that plan, with the given cost and dynamics instead of the usual ones (see `Seen`)."""

    def make(env: PickEnv, model: WorldModel, settings: Planning, generator: torch.Generator) -> Looking:
        seen = Seen(env, model, cost=cost, world=world)
        return Looking(seen, Planned(seen, settings, generator))

    return make


def following(kind: type[Servo]) -> Maker:
    """Makes agents that take steps proportional to an error."""

    def make(env: PickEnv, model: WorldModel, settings: Planning, generator: torch.Generator) -> Looking:
        seen = Seen(env, model)
        return Looking(seen, kind(seen))

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
"""Agents that see only pictures, by name; the caller gives `FROZEN` a world model with a random encoder."""

ABLATIONS: Mapping[str, Maker] = {
    "predictor off": planning(world=lambda seen: seen.eyes.dynamics.over(StillLatents())),
    "object term off": planning(cost=HANDS_ALONE),
    "latent distance": planning(cost=IN_LATENTS),
}
"""The world model without its predictor (heads and filter stay), or with another cost: hand and grip alone, or the
distance between latents, for which no head is needed."""
