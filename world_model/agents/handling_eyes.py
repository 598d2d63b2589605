"""What pictures and proprioception say of hand, object and grip: now, and in the goal image.

    now:   hand felt;  object = hand + r_object(z), filtered over the steps;  grip = the opening that was told
    goal:  hand = felt + p(z_goal) - p(z), filtered likewise;                 object = hand + r_object(z_goal);
           grip = r_grip(z_goal)

The filter weighs each reading by the error that its head expects, so that an object that left the view stays where it
was last seen. Fingers count, too: where they meet, the object is not in the hand, whatever the image looks like. The
sensors have the order of a simulator's: every control that reads those can read these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.types import Context, Goal, Observation
from jepa_mpc.world_model.dynamics.model import WorldModel
from jepa_mpc.world_model.dynamics.read_out import ReadOutDynamics, near, sensors

OBJECT, GRIP, HELD = "object", "grip", "held"
SURE_M, DOUBT = 0.01, 0.15  # the goal's place seen from the hand errs by 1 cm and 15 % of the way
MET_M = 0.008  # fingers that are no farther apart than told, give or take, have met
IN_HAND_M = 0.03  # what is read nearer is read to be in the hand
CLOSED_M = 0.01  # fingers told to be closer would hold any object
MOVED_M = 0.05  # how far a hand may move what it is near, in one step


class Track:
    """Where something is: a Kalman filter with one variance for all axes."""

    def __init__(self) -> None:
        self.place, self.variance = torch.zeros(1, 3), math.inf  # m, m^2

    def stir(self, away_m: float) -> None:
        """A hand acted that far from it, and may have moved it."""
        self.variance += (MOVED_M * float(near(torch.tensor(away_m)))) ** 2

    def add(self, place: Annotated[Tensor, "1 3"], doubt_m: float) -> None:
        """One more reading, and the error to be expected of it."""
        gain = 1.0 / (1.0 + doubt_m**2 / self.variance)
        self.place, self.variance = self.place + gain * (place - self.place), gain * doubt_m**2


def check_heads(model: WorldModel) -> Callable[[Tensor], Tensor]:
    """Refuse a world model that cannot handle; returns its head for displacements.

    Raises:
        BadCheckpoint: If it lacks a head; names those that are missing.
    """
    missing = [name for name in (OBJECT, GRIP, HELD) if name not in model.readings]
    if missing or model.position_head is None:
        raise BadCheckpoint(
            f"handling needs heads for displacement, {OBJECT}, {GRIP} and {HELD}, this world model lacks "
            f"{', '.join([*missing, *([] if model.position_head else ['displacement'])])}: train system=handling"
        )
    return model.position_head


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
        self.model, self._position = model, check_heads(model)
        thing, held = model.readings[OBJECT], model.readings[HELD]
        self.dynamics = ReadOutDynamics(
            model.dynamics, thing.read, thing.doubt, held.read, low=low, high=high, widest_m=widest_m
        )
        self._goal = self._latents = self._hand = self._told = torch.zeros(0)
        self._target, self._object = Track(), Track()

    def aim(self, goal: Observation) -> None:
        """Take up a goal image."""
        self._goal, self._target = self.model.perception(goal)[:, -1], Track()

    def look(self, observation: Observation, told_m: Annotated[Tensor, "1"]) -> None:
        """Take in a moment: its pictures, the hand's place in its proprioception, and the opening last told."""
        assert observation.proprio is not None
        self._latents = self.model.perception(observation)[:, -1]
        before, self._hand = self._hand, observation.proprio[:, -1, -6:-3].float()
        self._told = told_m.float()[None]
        way = self._position(self._goal) - self._position(self._latents)  # (1, 3)
        self._target.add(self._hand + way, SURE_M + DOUBT * float(way.norm()))
        step = torch.stack([before if len(before) else self._hand, self._hand])
        self._object.stir(float((step - self._object.place).norm(dim=-1).min()))
        self._find(float(observation.proprio[0, -1, -7]) - float(told_m))

    def _find(self, apart_m: float) -> None:
        """Follow the object by what is seen, unless fingers that have met say that it is not in the hand."""
        head = self.model.readings[OBJECT]
        seen, doubt_m = head.read(self._latents), float(head.doubt(self._latents))
        met = apart_m <= MET_M and float(self._told) < CLOSED_M
        if not (met and float(seen.norm()) < IN_HAND_M):
            self._object.add(self._hand + seen, doubt_m)

    def context(self) -> Context:
        """The present, as the dynamics takes it."""
        known = torch.cat([self._hand, self._object.place, self._told], dim=-1)
        return Context(latents=self._latents[:, None], actions=known.new_zeros(1, 0, 5), proprio=known[:, None])

    def now(self) -> Annotated[Tensor, "1 10"]:
        """What is read of the present."""
        return sensors(self._hand, self._object.place, self._told)

    def goal(self) -> Goal:
        """The goal, with what is read of it."""
        place = self._target.place
        grip = self.model.readings[GRIP].read(self._goal).clamp(0.0, self.dynamics.widest_m)
        found = place + self.model.readings[OBJECT].read(self._goal)
        return Goal(latents=self._goal, sensors=sensors(place, found, grip))
