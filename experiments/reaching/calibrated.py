"""The agent that checks what its world model reads against where it sees and feels its own hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_mpc.encoders.hand_points import HandPoints, Sighting
from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.errors import BadCheckpoint, BadObservation, UnknownName, choose
from jepa_mpc.experiments.reaching.full_agent import PLACE
from jepa_mpc.experiments.reaching.players import ModelPlayer, PlanSettings
from jepa_mpc.interfaces import Cost, Perception
from jepa_mpc.types import Latents, Observation
from jepa_mpc.world_model.checkpoints.loader import WorldModel
from jepa_mpc.world_model.costs.goal import PlaceDistance
from jepa_mpc.world_model.perception.goal_finder import GoalFinder, load_hand_points

LEAST_PX = 8
WAYS = {"commanded": False, "felt": True}
"""Ways of knowing the hand's place, and whether its pose is felt."""
SIDES = {"left": 1, "right": -1}


@dataclass(frozen=True, kw_only=True)
class CalibratedAgent:
    """What configs/agent/calibrated.yaml names.

    Args:
        points: Folder of the points of the hand.
        place: How the hand's way is known: "commanded" adds up the agent's own commands, "felt" takes the measured
            pose.
        camera_px: Least size of the camera's pictures; the world model gets them at its own.
        sizes: In which sizes the hand is looked for (px).
    """

    points: str
    place: str = "commanded"
    camera_px: int = 128
    sizes: Sequence[int] = (64, 96, 128)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> CalibratedAgent:
        """What `agent=calibrated` describes.

        Raises:
            UnknownName: If there is no such option, or no such way of knowing the hand's place.
            ValueError: If a size is no number of pixels.
        """
        for name in options.keys() - cls.__dataclass_fields__.keys():
            raise UnknownName("option of agent=calibrated", str(name), cls.__dataclass_fields__)
        made = cls(**{str(name): value for name, value in options.items()})
        choose(WAYS, made.place, "place")
        if not made.sizes or min(made.camera_px, *made.sizes) < 16:
            raise ValueError(f"camera_px and sizes must be pixels from 16, got {made.camera_px} and {made.sizes}")
        return made

    def picture_px(self, model_px: int) -> int:
        """Size of the camera's pictures: a whole multiple of what the world model sees.

        Raises:
            BadCheckpoint: If the world model says that it sees next to nothing.
        """
        if model_px < LEAST_PX:
            raise BadCheckpoint(f"the world model sees pictures of {model_px} px: need image_size >= {LEAST_PX}")
        return model_px * ceil(self.camera_px / model_px)


class CalibratedPlayer(ModelPlayer):
    """Plans in the world model towards the place that `GoalFinder` names.

    It is given images and nothing else, unless it shall feel the hand's pose instead of adding up its own commands.

    Args:
        agent: What it is made of.
        model: The world model, with a displacement head.
        env: Tells the action box.
        settings: How to plan.
        seed: Seed of the planner.

    Raises:
        BadCheckpoint: If the world model measures no metres.
    """

    def __init__(
        self, agent: CalibratedAgent, model: WorldModel, env: ReachEnv, settings: PlanSettings, *, seed: int
    ) -> None:
        if model.metres is None:
            raise BadCheckpoint("agent=calibrated needs a world model with a displacement head; agent=simple does not")
        self.cost = PlaceDistance(model.metres)
        super().__init__(model, env, settings, seed=seed)
        self.agent.perception = _Once(model.perception)
        self.points = points_at(Path(agent.points), str(self.device))
        self.sizes = tuple(int(size) for size in agent.sizes)
        self.felt = WAYS[agent.place]
        self.walked = torch.zeros(3)
        self.finder: GoalFinder | None = None
        self.goal: Tensor | None = None
        self.gap_m = float("nan")

    def goal_cost(self) -> Cost:
        """Distance from the place that was found (m^2)."""
        return self.cost

    def begin(self, env: ReachEnv) -> None:
        """Encode the goal image, and forget the last episode."""
        super().begin(env)
        self.walked = torch.zeros(3)
        goal = env.goal()
        self.goal = goal.frames[:, -1].to(self.device)
        self.finder = GoalFinder(sides=[_side(name) for name in goal.cameras])

    def act(self, env: ReachEnv) -> NDArray[np.float32]:
        """Perceive, find the goal, plan, answer `(7,)`."""
        assert self.finder is not None and self.goal is not None and self._goal_at is not None
        seen = env.observation()
        here = self._here(seen)
        present = self._place(self.agent.perception(here)[0, -1])
        place = _felt(seen) if self.felt else self.walked
        hand, goal = self._sightings(seen)
        read, wanted = torch.from_numpy(present), torch.from_numpy(self._goal_at)
        way = self.finder(hand, goal, place_m=place, read_m=read, goal_read_m=wanted)
        self.gap_m = float(way.norm())
        self.cost.wanted = (read + way)[None].to(self.device)
        action = self.agent.act(here)[0].cpu()
        self.walked = self.walked + action[:3]
        return action.numpy().astype(np.float32)

    def believes_m(self) -> float:
        """Distance of the goal as it is found (m)."""
        return self.gap_m

    def _sightings(self, observation: Observation) -> tuple[Sighting, Sighting]:
        """Where the hand is seen now, and where in the goal image: each beside the other."""
        assert self.goal is not None
        now = observation.frames[:, -1].to(self.device)
        found = self.points.find(torch.cat([now, self.goal]), torch.cat([self.goal, now]), sizes=self.sizes)
        at, spread = found.at.cpu(), found.spread.cpu()
        return Sighting(at=at[:1], spread=spread[:1]), Sighting(at=at[1:], spread=spread[1:])


class _Once:
    """A perception that looks at each observation once, however often it is asked."""

    def __init__(self, perception: Perception) -> None:
        self.perception = perception
        self.last: tuple[Observation, Latents] | None = None

    def __call__(self, observation: Observation) -> Latents:
        """Latents `B T N D`."""
        if self.last is None or self.last[0] is not observation:
            self.last = observation, self.perception(observation)
        return self.last[1]


@lru_cache(maxsize=2)
def points_at(folder: Path, device: str) -> HandPoints:
    """Points of the hand, read once per process."""
    return load_hand_points(folder, device=device)


def _felt(observation: Observation) -> Tensor:
    """Where the hand is felt, in the base frame (m)."""
    if observation.proprio is None:
        raise BadObservation("agent.place=felt needs the hand's own pose, and the observation has no proprioception")
    return observation.proprio[0, -1, list(PLACE)].float()


def _side(camera: str) -> int:
    if camera not in SIDES:
        raise BadObservation(
            f"agent=calibrated knows cameras left and right of the robot, not {camera!r}; agent=simple knows any"
        )
    return SIDES[camera]
