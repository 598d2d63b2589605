"""A trained world model as the parts of an agent: perception, dynamics, goal cost and position head."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from jepa_mpc.costs import PlanCost, last, mean
from jepa_mpc.encoders.layers.pixels import NormalisePixels
from jepa_mpc.encoders.preprocessing import EvaluationPixels, RobotPixels
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.types import ActionBox, Context, Observation
from jepa_mpc.world_model.costs.goal import GoalDistance, absolute, squared
from jepa_mpc.world_model.dynamics.ensemble import EnsembleDynamics, EnsemblePerception, MeanMeasure
from jepa_mpc.world_model.dynamics.learned import LearnedDynamics
from jepa_mpc.world_model.parts.distances import AbsoluteError
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from jepa_mpc.world_model.parts.poses import PoseReader, check_pose
from jepa_mpc.world_model.parts.position_head import HindsightDisplacement
from jepa_mpc.world_model.parts.readouts import HindsightReading
from jepa_mpc.world_model.perception.images import ImagePerception

POSITION_HEAD = "displacement"
"""Name of the objective's part that measures positions."""

LARGEST_VIEW = 2**22
"""Pixels that a model may see at a time, all cameras together."""


@dataclass(frozen=True, kw_only=True)
class Interface:
    """What a world model was trained to see and to command; checked before it meets a robot.

    Args:
        cameras: Names of the cameras, in the order of their channels.
        image_size: Width and height of the pictures in pixels.
        actions: Name of each action axis, with its unit.
        dt_s: Seconds between two observations.
        log: What it was trained on, in words.
        robot: The robot adapter of the training log (`trajectories.robot_adapter`), or nothing.
        embodiment: Name of the robot that moves in it, or an empty string if the log does not say.

    Raises:
        ValueError: If `dt_s` is not a positive number.
    """

    cameras: tuple[str, ...]
    image_size: int
    actions: tuple[str, ...]
    dt_s: float
    log: str = ""
    robot: Mapping[str, Any] = field(default_factory=dict)
    embodiment: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.dt_s < math.inf:
            raise ValueError(f"dt_s must be a positive number of seconds, got {self.dt_s}")

    @property
    def side(self) -> tuple[int, int]:
        """Height and width of the pictures in pixels."""
        return self.image_size, self.image_size

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings."""
        known = {"robot": dict(self.robot), "embodiment": self.embodiment}
        return {
            "cameras": list(self.cameras),
            "image_size": self.image_size,
            "actions": list(self.actions),
            "dt_s": self.dt_s,
            "log": self.log,
        } | {name: value for name, value in known.items() if value}


@dataclass(frozen=True, kw_only=True)
class WorldModel:
    """A trained world model, ready for an agent; its system's recipe supplies the parts.

    Args:
        members: Encoder, predictor and heads: of one network, or of each member of an ensemble.
        interface: What it sees and commands.
        perception: Frames to latents.
        dynamics: Plans to imagined latents.
        goal_cost: How far imagined states are from the goal, as the system was trained to measure it.
        position_head: Maps latents `... N D` to positions `... 3` whose differences are metres, or None.
        readings: Further heads by name, trained in hindsight: what they read from latents, and how far off it may be.
        proprio_dim: Numbers of proprioception that it needs beside the pictures; 0 for none.
        check_proprio: Refuses proprioception `B T P` that cannot be what it was trained with, with a ValueError.
        fingerprint: Short hash of the weights.
    """

    members: tuple[DynamicsObjective, ...]
    interface: Interface
    perception: ImagePerception | EnsemblePerception
    dynamics: LearnedDynamics | EnsembleDynamics
    goal_cost: PlanCost
    position_head: Callable[[Tensor], Tensor] | None = None
    readings: Mapping[str, HindsightReading] = field(default_factory=dict)
    proprio_dim: int = 0
    check_proprio: Callable[[Tensor], None] = lambda proprio: None
    fingerprint: str = ""

    @property
    def objective(self) -> DynamicsObjective:
        """The network; in an ensemble the first one, which speaks for the others' form."""
        return self.members[0]

    @property
    def device(self) -> torch.device:
        """Where its networks run."""
        return next(self.objective.parameters()).device

    @property
    def steps_per_action(self) -> int:
        """Steps of the robot in one action: more than one where the model takes blocks of actions."""
        robot = self.interface.robot
        return int(robot.get("skip", 1)) if robot.get("blocks") == "stacked" else 1

    @property
    def needs_proprio(self) -> bool:
        """Whether it needs proprioception beside the pictures."""
        return self.proprio_dim > 0

    def check_robot(
        self, *, box: ActionBox, cameras: Sequence[str], image_size: int, dt_s: float, embodiment: str = ""
    ) -> None:
        """Refuse a robot that this model was not trained for; where a name is not known, it is not compared.

        Raises:
            BadCheckpoint: With what the model knows and what the robot has.
        """
        known, facts = self.interface, []
        if box.dim != len(known.actions):
            facts.append(
                f"actions of {len(known.actions)} numbers ({', '.join(known.actions)}), the robot takes {box.dim}"
            )
        if tuple(cameras) != known.cameras:
            facts.append(f"cameras {known.cameras}, the robot has {tuple(cameras)}")
        if image_size != known.image_size:
            facts.append(f"pictures of {known.image_size} px, the robot gives {image_size} px")
        if not abs(dt_s - known.dt_s) <= 1e-6:  # NaN too
            facts.append(f"steps of {known.dt_s} s, the robot makes steps of {dt_s} s")
        if embodiment and known.embodiment and embodiment != known.embodiment:
            facts.append(f"the arm {known.embodiment}, the robot is {embodiment}")
        if facts:
            raise BadCheckpoint("this world model was trained for another robot: it knows " + "; ".join(facts))

    def try_out(self) -> None:
        """See one black picture and imagine one step: parts that do not fit each other raise here.

        Raises:
            ValueError: If the interface asks for more pixels than are seen at a time; and whatever a misfit raises.
        """
        known = self.interface
        if len(known.cameras) * known.image_size**2 > LARGEST_VIEW:
            raise ValueError(f"at most {LARGEST_VIEW} pixels are seen at a time")
        frames = torch.zeros(1, 1, 3 * len(known.cameras), *known.side, dtype=torch.uint8)
        felt = torch.zeros(1, 1, self.proprio_dim) if self.needs_proprio else None
        latents = self.perception(Observation(frames=frames, cameras=known.cameras, proprio=felt))
        if self.position_head is not None:
            self.position_head(latents)
        actions = torch.zeros(1, 1, 1, len(known.actions))
        self.dynamics.rollout(Context(latents=latents, actions=actions[:, 0, :0], proprio=felt), actions)


def latent_world_model(
    objective: DynamicsObjective, interface: Interface, *, context: int = 1, fingerprint: str = ""
) -> WorldModel:
    """The world model around an encoder of single frames and a predictor of their latents.

    With a position head the goal cost is squared metres at every step of a plan; without one it is the training's own
    distance at the last step (V-JEPA 2-AC).

    Args:
        objective: The trained objective.
        interface: What it sees and commands.
        context: Frames that the predictor looks back on.
        fingerprint: Short hash of the weights.

    Raises:
        BadCheckpoint: If the objective prepares its pictures in a way that is not known here.
        ValueError: If the predictor looks back on fewer frames than `context`.
    """
    head = dict(objective.parts.items()).get(POSITION_HEAD)
    position = head.metres if isinstance(head, HindsightDisplacement) else None
    gap = absolute if position is None and isinstance(objective.distance, AbsoluteError) else squared
    reader = objective.predictor.proprio
    return WorldModel(
        members=(objective,),
        interface=interface,
        perception=ImagePerception(
            objective.encoder, cameras=interface.cameras, image_size=interface.side, **scaling(objective.preprocess)
        ),
        dynamics=LearnedDynamics(objective.predictor, max_context=checked_context(context, objective.predictor)),
        goal_cost=PlanCost(GoalDistance(distance=gap, metric=position), last if position is None else mean),
        position_head=position,
        readings={name: part for name, part in objective.parts.items() if isinstance(part, HindsightReading)},
        proprio_dim=0 if reader is None else reader.width,
        check_proprio=_pose_check(reader),
        fingerprint=fingerprint,
    )


def checked_context(context: int, predictor: Any) -> int:
    """The number of frames, if a predictor looks back on so many.

    Raises:
        ValueError: If it does not.
    """
    if not 1 <= context <= predictor.window:
        raise ValueError(f"this world model looks back on 1 to {predictor.window} frames, got context={context}")
    return context


def as_ensemble(models: Sequence[WorldModel], *, fingerprint: str = "") -> WorldModel:
    """Several world models of one robot as one: their latents side by side, their measures averaged.

    Raises:
        BadCheckpoint: If they see or command different things, or only some of them have a position head.
    """
    first = models[0]
    if any(replace(model.interface, log="") != replace(first.interface, log="") for model in models):
        raise BadCheckpoint("the members of an ensemble must see and command the same: cameras, pixels, actions, steps")
    heads = [model.position_head for model in models if model.position_head is not None]
    if len(heads) not in (0, len(models)):
        raise BadCheckpoint(f"{len(heads)} of {len(models)} members measure positions: all must, or none")
    mean = MeanMeasure(heads) if heads else None
    return replace(
        first,
        members=tuple(member for model in models for member in model.members),
        perception=EnsemblePerception([model.perception for model in models]),
        dynamics=EnsembleDynamics([model.dynamics for model in models]),
        goal_cost=first.goal_cost if mean is None else PlanCost(GoalDistance(metric=mean)),
        position_head=mean,
        fingerprint=fingerprint,
    )


def scaling(preprocess: object) -> dict[str, Any]:
    """How perception prepares pictures as the training did: arguments of `ImagePerception`.

    Raises:
        BadCheckpoint: If it is not known here.
    """
    if isinstance(preprocess, RobotPixels | EvaluationPixels):
        return {"prepare": preprocess}
    if not isinstance(preprocess, NormalisePixels):
        raise BadCheckpoint(f"expected pixels normalised by constants, got {type(preprocess).__name__}")
    mean, std = (value.flatten() / 255 for value in (preprocess.mean, preprocess.std))
    return {"mean": mean.expand(3).tolist(), "std": std.expand(3).tolist()}


def _pose_check(reader: object) -> Callable[[Tensor], None]:
    """What refuses proprioception that is read as a pose and cannot be one; anything goes where it is not."""
    if not isinstance(reader, PoseReader):
        return lambda proprio: None
    return lambda proprio: check_pose(reader(proprio))
