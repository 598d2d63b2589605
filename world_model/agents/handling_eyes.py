"""What pictures, and what the hand feels of itself, say of hand, object and grip: now, and in the goal image.

    now:   hand felt;  object = hand + r_object(z), far readings averaged;    grip = the opening that was told
    goal:  hand = felt + p(z_goal) - p(z), averaged over the steps;           object = hand + r_object(z_goal);
           grip = r_grip(z_goal)

The sensors have the order of a simulator's, so that every control that reads those can see with these eyes.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.types import Context, Goal, Observation
from jepa_mpc.world_model.dynamics.model import WorldModel
from jepa_mpc.world_model.dynamics.read_out import REACH_M, ReadOutDynamics, sensors

OBJECT, GRIP = "object", "grip"
SURE_M, DOUBT = 0.01, 0.15  # a reading of how far something is errs by 1 cm and 15 % of the way


class Mean:
    """Readings of one place, those from nearby counting most."""

    def __init__(self) -> None:
        self.total, self.weight = torch.zeros(1, 3), 0.0

    def add(self, place: Annotated[Tensor, "1 3"], away_m: float) -> None:
        """One more reading, made at some distance."""
        weight = (SURE_M + DOUBT * away_m) ** -2
        self.total, self.weight = self.total + weight * place, self.weight + weight

    def place(self) -> Annotated[Tensor, "1 3"]:
        """Where it is."""
        return self.total / self.weight


class HandlingEyes:
    """Remembers one episode: what is seen now, and where the goal was read to be so far.

    Args:
        model: A world model with heads for displacement, object and grip (`system=handling`).
        low: Lowest corner `3` of where the hand is kept, m.
        high: Highest corner.
        widest_m: Largest opening of a finger.

    Raises:
        BadCheckpoint: If the model has not learned what has to be read.
    """

    def __init__(self, model: WorldModel, *, low: Tensor, high: Tensor, widest_m: float) -> None:
        missing = [name for name in (OBJECT, GRIP) if name not in model.readings]
        if missing or model.position_head is None:
            raise BadCheckpoint(
                f"handling needs heads for displacement, {OBJECT} and {GRIP}, this world model lacks "
                f"{', '.join([*missing, *([] if model.position_head else ['displacement'])])}: train system=handling"
            )
        self.model, self._position = model, model.position_head
        self.dynamics = ReadOutDynamics(model.dynamics, model.readings[OBJECT], low=low, high=high, widest_m=widest_m)
        self._goal = self._latents = self._hand = self._told = torch.zeros(0)
        self._target, self._object = Mean(), Mean()

    def aim(self, goal: Observation) -> None:
        """Take up a goal image."""
        self._goal, self._target = self.model.perception(goal)[:, -1], Mean()

    def look(self, observation: Observation, told_m: Annotated[Tensor, "1"]) -> None:
        """Take in a moment: its pictures, the hand's place in its proprioception, and the opening last told."""
        assert observation.proprio is not None
        self._latents = self.model.perception(observation)[:, -1]
        self._hand, self._told = observation.proprio[:, -1, -6:-3].float(), told_m.float()[None]
        way = self._position(self._goal) - self._position(self._latents)  # (1, 3)
        self._target.add(self._hand + way, float(way.norm()))
        seen = self.model.readings[OBJECT](self._latents)
        if float(seen.norm()) < REACH_M or not self._lies_far():
            self._object = Mean()  # it may have been moved
        self._object.add(self._hand + seen, float(seen.norm()))

    def context(self) -> Context:
        """The present, as the dynamics takes it."""
        known = torch.cat([self._hand, self._object.place(), self._told], dim=-1)
        return Context(latents=self._latents[:, None], actions=known.new_zeros(1, 0, 5), proprio=known[:, None])

    def now(self) -> Annotated[Tensor, "1 10"]:
        """What is read of the present."""
        return sensors(self._hand, self._object.place(), self._told)

    def goal(self) -> Goal:
        """The goal, with what is read of it."""
        place = self._target.place()
        grip = self.model.readings[GRIP](self._goal).clamp(0.0, self.dynamics.widest_m)
        return Goal(latents=self._goal, sensors=sensors(place, place + self.model.readings[OBJECT](self._goal), grip))

    def _lies_far(self) -> bool:
        """Whether the object is out of the hand's reach, by all that was seen so far."""
        return self._object.weight > 0 and float((self._object.place() - self._hand).norm()) > REACH_M
