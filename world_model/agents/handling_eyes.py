"""What images and proprioception say of hand, object and grip: now, and in the goal image.

    now:   hand felt;  object = hand + r_object(z, height of the hand), filtered over the steps;
           grip = the commanded opening;
           with a finder, the object of the goal image is looked for, too: a second reading of it
    goal:  hand = felt + p(z_goal) - p(z), filtered likewise;  object = hand + r_object(z_goal, its height);
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

from jepa_mpc.encoders.convnet import CHANNELS_PER_CAMERA
from jepa_mpc.errors import BadCheckpoint, BadObservation
from jepa_mpc.types import Goal, Observation, State
from jepa_mpc.world_model.dynamics.model import WorldModel
from jepa_mpc.world_model.dynamics.read_out import GRIPPER, HEIGHT, ReadOutDynamics, near, sensors

OBJECT, GRIP, HELD = "object", "grip", "held"
SURE_M, DOUBT = 0.01, 0.15  # the goal's place seen from the hand errs by 1 cm and 15 % of the way
MET_M = 0.008  # fingers that are no farther apart than commanded, give or take, have met
IN_HAND_M = 0.03  # what is read nearer is read to be in the hand
CLOSED_M = 0.01  # fingers commanded to be closer would hold any object
OPENING, HAND = -7, slice(-6, -3)  # of proprioception: measured opening and position of the hand, m
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
    """The goal reader of handling: it also tracks the object. One world at a time.

    Of an observation's proprioception it reads the measured opening and the position of the hand. The commanded opening
    is summed up from the actions, beginning with the measured one.

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
        self._goal, self._shown = torch.zeros(0), torch.zeros(0)
        self._hand: Tensor | None = None
        self._commanded = torch.zeros(1, 1)
        self._target, self._object = Track(), Track()

    def reset(self, goal: Observation) -> Goal:
        """Begin an episode with a goal image.

        Raises:
            BadObservation: If there is more than one world.
        """
        if goal.frames.shape[0] != 1:
            raise BadObservation(f"handling supports one world, got {goal.frames.shape[0]}")
        self._hand, self._object = None, Track()
        return self.aim(goal)

    def aim(self, goal: Observation) -> Goal:
        """Take up another goal image; the object is still tracked."""
        self._goal, self._target = self.model.perception(goal)[:, -1], Track()
        self._shown = _of_hand_camera(goal)
        return Goal(latents=self._goal)

    @torch.no_grad()
    def update(self, observation: Observation, state: State) -> Goal:
        """The goal with sensors, after an observation with proprioception and its perceived state `1 N D`.

        Raises:
            BadObservation: If there is no proprioception.
        """
        if observation.proprio is None or observation.proprio.shape[-1] < -OPENING:
            raise BadObservation("handling needs proprioception: the opening of the gripper and the pose of the hand")
        felt = observation.proprio[:, -1].float()
        if self._hand is None:
            self._commanded = felt[:, [OPENING]].clamp(0.0, self.dynamics.widest_m)
        before, self._hand = self._hand, felt[:, HAND]
        way = self._position(self._goal) - self._position(state)  # (1, 3)
        self._target.add(self._hand + way, SURE_M + DOUBT * float(way.norm()))
        step = torch.stack([self._hand if before is None else before, self._hand])
        self._object.stir(float((step - self._object.place).norm(dim=-1).min()))
        self._find(observation, state)
        return self.goal()

    def did(self, action: Annotated[Tensor, "1 A"]) -> None:
        """Follow the commanded opening."""
        closing = self.dynamics.widest_m * action[:, GRIPPER : GRIPPER + 1].cpu()
        self._commanded = (self._commanded - closing).clamp(0.0, self.dynamics.widest_m)

    def known(self, observation: Observation) -> Annotated[Tensor, "1 7"]:
        """What the dynamics starts from after `update`: hand, tracked object and commanded opening."""
        assert self._hand is not None
        return torch.cat([self._hand, self._object.place, self._commanded], dim=-1)

    def now(self) -> Annotated[Tensor, "1 10"]:
        """What is read of the present."""
        assert self._hand is not None
        return sensors(self._hand, self._object.place, self._commanded)

    @torch.no_grad()
    def goal(self) -> Goal:
        """The goal, with what is read of it."""
        place = self._target.place
        grip = self.model.readings[GRIP].read(self._goal).clamp(0.0, self.dynamics.widest_m)
        found = place + self.model.readings[OBJECT].read(self._goal, place[:, HEIGHT])
        return Goal(latents=self._goal, sensors=sensors(place, found, grip))

    def _find(self, observation: Observation, state: State) -> None:
        """Follow the object by what is seen, unless fingers that have met say that it is not in the hand."""
        assert self._hand is not None and observation.proprio is not None
        head, height, seen = self.model.readings[OBJECT], self._hand[:, HEIGHT], Track()
        seen.add(head.read(state, height), float(head.doubt(state, height)))
        if self.model.finder is not None:
            found, doubt_m = self.model.finder.find(_of_hand_camera(observation)[None], self._shown, height)
            seen.add(found, float(doubt_m))
        apart_m = float(observation.proprio[0, -1, OPENING]) - float(self._commanded)
        met = apart_m <= MET_M and float(self._commanded) < CLOSED_M
        if not (met and float(seen.place.norm()) < IN_HAND_M):
            self._object.add(self._hand + seen.place, math.sqrt(seen.variance))


def _of_hand_camera(observation: Observation) -> Annotated[Tensor, "3 h w"]:
    """The newest image of the hand camera, which is the last one."""
    return observation.frames[0, -1, -CHANNELS_PER_CAMERA:]
