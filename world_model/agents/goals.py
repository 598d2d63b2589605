"""Goal readers: estimates of the goal from its image, refined during the episode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.encoders.hand_points import HandPoints, Sighting
from jepa_mpc.errors import BadCheckpoint, BadObservation
from jepa_mpc.interfaces import Perception
from jepa_mpc.types import Goal, Observation, State
from jepa_mpc.world_model.perception.goal_estimator import GoalEstimator

Position = Callable[[Tensor], Tensor]
"""A position head: states `... N D` -> positions `... 3` (m)."""

Place = Callable[[Observation], Annotated[Tensor, "3"]]
"""Proprioception of one world -> the measured position of the hand `(3,)` (m)."""


class EncodedGoal:
    """The goal is the latent state of its image; it is not refined.

    Args:
        perception: Frames to latents.
        sensors: Gives simulator sensors at the goal `B Q`, for costs on true dynamics; or None.
    """

    def __init__(
        self, perception: Perception, *, sensors: Callable[[], Annotated[Tensor, "B Q"]] | None = None
    ) -> None:
        self.perception, self.sensors = perception, sensors
        self._goal: Goal | None = None

    def reset(self, goal: Observation) -> Goal:
        """Encode the goal image; only its last frame is used."""
        latents = self.perception(goal)[:, -1]
        self._goal = Goal(latents=latents, sensors=None if self.sensors is None else self.sensors())
        return self._goal

    aim = reset

    def update(self, observation: Observation, state: State) -> Goal:
        """The same goal as before."""
        assert self._goal is not None
        return self._goal

    def did(self, action: Annotated[Tensor, "B A"]) -> None:
        """Does nothing."""


class CalibratedGoal:
    """Estimates the goal position from hand keypoints and the position head, with online calibration.

    `GoalEstimator` compares what every camera and the position head show in the current image and in the goal image
    with the hand's own motion. The estimate is `Goal.position`. One world at a time.

    Args:
        perception: Frames to latents.
        position_head: Maps latents to positions (m).
        keypoints: Detects the hand in images.
        sizes: Image sizes in which the hand is detected (px).
        place: Source of the hand position: None sums the agent's own commands, or a function that reads the measured
            position from an observation.
        step: Indices of the three action axes that move the hand (m).
    """

    def __init__(
        self,
        perception: Perception,
        *,
        position_head: Position,
        keypoints: HandPoints,
        sizes: tuple[int, ...] = (64, 96, 128),
        place: Place | None = None,
        step: slice = slice(0, 3),
    ) -> None:
        self.perception, self.position_head, self.keypoints = perception, position_head, keypoints
        self.sizes, self.place, self.step = sizes, place, step
        self._latents: State | None = None

    def reset(self, goal: Observation) -> Goal:
        """Encode the goal image and reset the calibration.

        Raises:
            BadObservation: If there is more than one world.
        """
        if goal.frames.shape[0] != 1:
            raise BadObservation(f"the calibrated goal supports one world, got {goal.frames.shape[0]}")
        self._latents, self._picture = self.perception(goal)[:, -1], goal.frames[:, -1]
        self._read = self._position(self._latents)
        self._walked = torch.zeros(3)
        self._estimator = GoalEstimator(cameras=goal.cameras)
        return Goal(latents=self._latents)

    aim = reset

    def update(self, observation: Observation, state: State) -> Goal:
        """Process the images of a step; returns the goal with its position in the frame of the position head."""
        assert self._latents is not None
        place = self._walked if self.place is None else self.place(observation)
        hand, goal = self._sightings(observation)
        read = self._position(state)
        way = self._estimator(hand, goal, place_m=place, read_m=read, goal_read_m=self._read)
        return Goal(latents=self._latents, position=(read + way)[None].to(state.device))

    def did(self, action: Annotated[Tensor, "B A"]) -> None:
        """Add a command to the hand's motion."""
        self._walked = self._walked + action[0, self.step].cpu()

    @torch.no_grad()
    def _position(self, state: State) -> Annotated[Tensor, "3"]:
        return self.position_head(state)[0].cpu()

    def _sightings(self, observation: Observation) -> tuple[Sighting, Sighting]:
        """Hand detections in the current image and in the goal image, each with the other as its pair."""
        now = observation.frames[:, -1]
        found = self.keypoints.find(torch.cat([now, self._picture]), torch.cat([self._picture, now]), sizes=self.sizes)
        at, spread = found.at.cpu(), found.spread.cpu()
        return Sighting(at=at[:1], spread=spread[:1]), Sighting(at=at[1:], spread=spread[1:])


def measured_position(axes: tuple[int, ...]) -> Place:
    """Reads the hand position from these entries of the proprioception (m)."""

    def place(observation: Observation) -> Annotated[Tensor, "3"]:
        if observation.proprio is None:
            raise BadObservation("place=felt needs the measured hand pose, but the observation has none")
        return observation.proprio[0, -1, list(axes)].float().cpu()

    return place


def needs_position_head(head: Position | None) -> Position:
    """The position head, if there is one.

    Raises:
        BadCheckpoint: If the world model has no position head.
    """
    if head is None:
        raise BadCheckpoint("agent=calibrated needs a world model with a position head; use agent=simple")
    return head
