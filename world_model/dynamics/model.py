"""A trained world model as the parts of an agent: perception, dynamics, goal cost and position head."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from jepa_mpc.costs import PlanCost, last, mean
from jepa_mpc.encoders.layers.pixels import NormalisePixels, ScenePixels
from jepa_mpc.encoders.object_finder import ObjectFinder
from jepa_mpc.encoders.preprocessing import EvaluationPixels, RobotPixels
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.types import ActionBox, Context, Observation
from jepa_mpc.world_model.costs.goal import GoalDistance, absolute, squared
from jepa_mpc.world_model.dynamics.ensemble import EnsembleDynamics, EnsemblePerception, MeanMeasure
from jepa_mpc.world_model.dynamics.learned import LearnedDynamics
from jepa_mpc.world_model.parts.distances import AbsoluteError
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from jepa_mpc.world_model.parts.poses import PoseReader, check_pose
from jepa_mpc.world_model.parts.position_head import HindsightDisplacement, MeasuredPosition
from jepa_mpc.world_model.parts.readouts import HindsightReading
from jepa_mpc.world_model.perception.images import ImagePerception

POSITION_HEAD = "displacement"
"""Name of the objective's position head."""

LARGEST_VIEW = 2**22
"""Maximum number of pixels per observation, all cameras together."""


@dataclass(frozen=True, kw_only=True)
class Interface:
    """Inputs and actions of a world model; compared with a robot before use.

    Args:
        cameras: Names of the cameras, in the order of their channels.
        image_size: Width and height of the images in pixels.
        actions: Name of each action axis, with its unit.
        dt_s: Seconds between two observations.
        log: Description of the training data.
        robot: The robot adapter of the training log (`trajectories.robot_adapter`), or nothing.
        embodiment: Name of the robot, or an empty string if unknown.

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
        """Height and width of the images in pixels."""
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
        interface: Its inputs and actions.
        perception: Frames to latents.
        dynamics: Plans to predicted latents.
        goal_cost: Distance of predicted states to the goal, as in the system's training.
        position_head: Maps latents `... N D` to positions `... 3` whose differences are in metres, or None.
        readings: Further heads by name, trained in hindsight, and their expected errors.
        finder: Finds the object of another image in that of the hand camera, or None.
        proprio_dim: Width of the proprioception that it needs in addition to images; 0 for none.
        check_proprio: Raises ValueError for proprioception `B T P` that is not of the trained kind.
        fingerprint: Short hash of the weights.
    """

    members: tuple[DynamicsObjective, ...]
    interface: Interface
    perception: ImagePerception | EnsemblePerception
    dynamics: LearnedDynamics | EnsembleDynamics
    goal_cost: PlanCost
    position_head: Callable[[Tensor], Tensor] | None = None
    readings: Mapping[str, HindsightReading] = field(default_factory=dict)
    finder: ObjectFinder | None = None
    proprio_dim: int = 0
    check_proprio: Callable[[Tensor], None] = lambda proprio: None
    fingerprint: str = ""

    @property
    def objective(self) -> DynamicsObjective:
        """The network; for an ensemble the first one, which has the same structure as the others."""
        return self.members[0]

    @property
    def device(self) -> torch.device:
        """Device of its networks."""
        return next(self.objective.parameters()).device

    @property
    def steps_per_action(self) -> int:
        """Robot steps per action: more than one for models of action blocks."""
        robot = self.interface.robot
        return int(robot.get("skip", 1)) if robot.get("blocks") == "stacked" else 1

    @property
    def needs_proprio(self) -> bool:
        """Whether it needs proprioception in addition to images."""
        return self.proprio_dim > 0

    def check_robot(
        self, *, box: ActionBox | None, cameras: Sequence[str], image_size: int, dt_s: float, embodiment: str = ""
    ) -> None:
        """Refuse a robot that this model was not trained for; an unknown name is not compared.

        Actions are not compared without `box`: for agents that translate them.

        Raises:
            BadCheckpoint: Names what the model expects and what the robot has.
        """
        known, facts = self.interface, []
        if box is not None and box.dim != len(known.actions):
            facts.append(
                f"actions of width {len(known.actions)} ({', '.join(known.actions)}), the robot takes {box.dim}"
            )
        if tuple(cameras) != known.cameras:
            facts.append(f"cameras {known.cameras}, the robot has {tuple(cameras)}")
        if image_size != known.image_size:
            facts.append(f"images of {known.image_size} px, the robot provides {image_size} px")
        if not abs(dt_s - known.dt_s) <= 1e-6:  # NaN too
            facts.append(f"steps of {known.dt_s} s, the robot has steps of {dt_s} s")
        if embodiment and known.embodiment and embodiment != known.embodiment:
            facts.append(f"the arm {known.embodiment}, the robot is {embodiment}")
        if facts:
            raise BadCheckpoint("this world model was trained for another robot: it expects " + "; ".join(facts))

    def try_out(self) -> None:
        """Encode one black image and predict one step: incompatible parts raise here.

        Raises:
            ValueError: If the interface exceeds the pixel limit; and any error of incompatible parts.
        """
        known = self.interface
        if len(known.cameras) * known.image_size**2 > LARGEST_VIEW:
            raise ValueError(f"an observation may have at most {LARGEST_VIEW} pixels")
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
    """The world model from an encoder of single frames and a predictor of their latents.

    With a position head the goal cost is the squared distance in metres at every step of a plan; without one it is the
    training's own distance at the last step (V-JEPA 2-AC).

    Args:
        objective: The trained objective.
        interface: Its inputs and actions.
        context: Number of context frames of the predictor.
        fingerprint: Short hash of the weights.

    Raises:
        BadCheckpoint: If the objective's image preprocessing is unknown.
        ValueError: If `context` exceeds the predictor's window.
    """
    head = dict(objective.parts.items()).get(POSITION_HEAD)
    position = head.metres if isinstance(head, HindsightDisplacement | MeasuredPosition) else None
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
        finder=objective.finder if isinstance(objective.finder, ObjectFinder) else None,
        proprio_dim=0 if reader is None else reader.width,
        check_proprio=_pose_check(reader),
        fingerprint=fingerprint,
    )


def checked_context(context: int, predictor: Any) -> int:
    """The number of context frames, checked against the predictor's window.

    Raises:
        ValueError: If it is out of range.
    """
    if not 1 <= context <= predictor.window:
        raise ValueError(f"this world model takes 1 to {predictor.window} context frames, got context={context}")
    return context


def as_ensemble(models: Sequence[WorldModel], *, fingerprint: str = "") -> WorldModel:
    """An ensemble of world models of one robot: latents are concatenated, position heads averaged.

    Raises:
        BadCheckpoint: If their inputs or actions differ, or only some have a position head.
    """
    first = models[0]
    if any(replace(model.interface, log="") != replace(first.interface, log="") for model in models):
        raise BadCheckpoint("the members of an ensemble must have the same cameras, image size, actions and time step")
    heads = [model.position_head for model in models if model.position_head is not None]
    if len(heads) not in (0, len(models)):
        raise BadCheckpoint(f"{len(heads)} of {len(models)} members have a position head: all must, or none")
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
    """Arguments of `ImagePerception` that reproduce the training's preprocessing.

    Raises:
        BadCheckpoint: If the preprocessing is unknown.
    """
    if isinstance(preprocess, RobotPixels | EvaluationPixels | ScenePixels):
        return {"prepare": preprocess}
    if not isinstance(preprocess, NormalisePixels):
        raise BadCheckpoint(f"expected pixels normalised by constants, got {type(preprocess).__name__}")
    mean, std = (value.flatten() / 255 for value in (preprocess.mean, preprocess.std))
    return {"mean": mean.expand(3).tolist(), "std": std.expand(3).tolist()}


def _pose_check(reader: object) -> Callable[[Tensor], None]:
    """Checks proprioception that is read as a pose; accepts everything otherwise."""
    if not isinstance(reader, PoseReader):
        return lambda proprio: None
    return lambda proprio: check_pose(reader(proprio))
