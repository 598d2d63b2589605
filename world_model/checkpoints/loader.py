"""A trained world model as the parts of an agent, and the folder that it is kept in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jepa_mpc.checkpoint import load_checkpoint, open_checkpoint, save_checkpoint
from jepa_mpc.encoders.layers.pixels import NormalisePixels
from jepa_mpc.encoders.preprocessing import EvaluationPixels, RobotPixels
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.types import ActionBox, Context, Observation
from jepa_mpc.world_model.checkpoints.restore import MISFITS, load_network, restore
from jepa_mpc.world_model.costs.goal import GoalDistance, absolute, squared
from jepa_mpc.world_model.dynamics.ensemble import EnsembleDynamics, EnsemblePerception, MeanMeasure
from jepa_mpc.world_model.dynamics.learned import LearnedDynamics
from jepa_mpc.world_model.dynamics.objects import AlignedDynamics, MatchedGap, SlotPerception
from jepa_mpc.world_model.parts.distances import AbsoluteError
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from jepa_mpc.world_model.parts.objectives.slots import ObjectObjective
from jepa_mpc.world_model.parts.poses import ArmPose, GivenPose, check_pose
from jepa_mpc.world_model.parts.position_head import HindsightDisplacement
from jepa_mpc.world_model.perception.images import ImagePerception

DISPLACEMENT = "displacement"
SYSTEMS = "systems"
"""In the configuration of an ensemble: what each member is built from."""

LARGEST_VIEW = 2**22
"""Pixels of all cameras together: four pictures of 1024 px."""


@dataclass(frozen=True, kw_only=True)
class Interface:
    """What a world model was trained to see and to command; checked before it meets a robot.

    Args:
        cameras: Names of the cameras, in the order of their channels.
        image_size: Width and height of the pictures in pixels.
        actions: Name of each action axis, with its unit.
        dt_s: Seconds between two observations.
        log: What it was trained on, in words.
        robot: How the log's columns, pictures and actions were made, as `trajectories.door` reads it; may be empty.
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
    """A trained world model, ready for an agent.

    Args:
        members: Encoder, predictor and heads: of one network, or of each member of an ensemble.
        interface: What it sees and commands.
        perception: Frames to latents.
        dynamics: Plans to imagined latents.
        metres: Maps latents `... N D` to places `... 3` whose differences are metres, or None without such a head.
        fingerprint: Short hash of the weights.
    """

    members: tuple[DynamicsObjective, ...]
    interface: Interface
    perception: ImagePerception | EnsemblePerception
    dynamics: LearnedDynamics | EnsembleDynamics
    metres: Callable[[Tensor], Tensor] | None
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
    def feels(self) -> bool:
        """Whether it needs proprioception beside the pictures."""
        if isinstance(self.objective, ObjectObjective):
            return self.objective.predictor.felt is not None
        return self.objective.predictor.proprio is not None

    def checked_proprio(self, proprio: Tensor) -> Tensor:
        """Proprioception `B T P` as it is, after a look at its values where it is read as a pose.

        Raises:
            ValueError: If it cannot be a pose (degrees, a quaternion, another range of the gripper).
        """
        part = self.objective.predictor.proprio
        if isinstance(part, GivenPose | ArmPose):
            check_pose(part(proprio.to(next(self.objective.parameters()).device)))
        return proprio

    def goal_cost(self) -> GoalDistance:
        """How far imagined states are from the goal: in m^2 all the way, or in the training's own at the end.

        A system that measures metres gets there step by step; the energy of V-JEPA 2-AC is that of the last step.
        """
        if self.metres is not None:
            return GoalDistance(steps="all", metric=self.metres)
        if isinstance(self.objective, ObjectObjective):
            return GoalDistance(steps="last", distance=MatchedGap(extra=self.objective.predictor.num_extra))
        l1 = isinstance(self.objective.distance, AbsoluteError)
        return GoalDistance(steps="last", distance=absolute if l1 else squared)

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


COMPANIONS = ("policy", "critic")
"""What checkpoint folders hold beside world models, by the entry of their configuration."""


def as_world_model(objective: DynamicsObjective, interface: Interface, *, fingerprint: str = "") -> WorldModel:
    """The parts of an agent around a trained objective.

    Raises:
        BadCheckpoint: If the objective prepares its pictures in a way that is not known here.
    """
    if isinstance(objective, ObjectObjective):
        side = (interface.image_size, interface.image_size)
        return WorldModel(
            members=(objective,),
            interface=interface,
            perception=SlotPerception(objective, cameras=interface.cameras, image_size=side),
            dynamics=AlignedDynamics(objective.predictor),
            metres=None,
            fingerprint=fingerprint,
        )
    head = dict(objective.parts.items()).get(DISPLACEMENT)
    return WorldModel(
        members=(objective,),
        interface=interface,
        perception=ImagePerception(
            objective.encoder,
            cameras=interface.cameras,
            image_size=(interface.image_size, interface.image_size),
            **_scaling(objective.preprocess),
        ),
        dynamics=LearnedDynamics(objective.predictor, max_context=1),
        metres=head.metres if isinstance(head, HindsightDisplacement) else None,
        fingerprint=fingerprint,
    )


def as_ensemble(models: Sequence[WorldModel], *, fingerprint: str = "") -> WorldModel:
    """Several world models of one robot as one: their latents side by side, their measures averaged.

    Raises:
        BadCheckpoint: If they see or command different things, or only some of them measure metres.
    """
    first = models[0]
    if any(replace(model.interface, log="") != replace(first.interface, log="") for model in models):
        raise BadCheckpoint("the members of an ensemble must see and command the same: cameras, pixels, actions, steps")
    heads = [model.metres for model in models if model.metres is not None]
    if len(heads) not in (0, len(models)):
        raise BadCheckpoint(f"{len(heads)} of {len(models)} members measure metres: all of an ensemble must, or none")
    return WorldModel(
        members=tuple(member for model in models for member in model.members),
        interface=first.interface,
        perception=EnsemblePerception([model.perception for model in models]),
        dynamics=EnsembleDynamics([model.dynamics for model in models]),
        metres=MeanMeasure(heads) if heads else None,
        fingerprint=fingerprint,
    )


def _scaling(preprocess: object) -> dict[str, Any]:
    """How perception prepares pictures as the training did."""
    if isinstance(preprocess, RobotPixels | EvaluationPixels):
        return {"prepare": preprocess}
    if not isinstance(preprocess, NormalisePixels):
        raise BadCheckpoint(f"expected pixels normalised by constants, got {type(preprocess).__name__}")
    mean, std = (value.flatten() / 255 for value in (preprocess.mean, preprocess.std))
    return {"mean": mean.expand(3).tolist(), "std": std.expand(3).tolist()}


def save_world_model(
    folder: str | Path,
    objective: nn.Module,
    *,
    system: Mapping[str, Any],
    interface: Interface,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Publish a world model: weights, the configuration that builds it, and what it sees and commands.

    Args:
        folder: Where; replaced as a whole, never half written.
        objective: The trained objective.
        system: The configuration that `assemble` builds it from.
        interface: What it was trained to see and command.
        training: How it came to be (settings, seed, steps, scores), for people.
    """
    config = {"system": dict(system), "interface": interface.to_dict(), "training": dict(training or {})}
    save_checkpoint(folder, objective.state_dict(), config)


def load_world_model(folder: str | Path, *, device: torch.device | str = "cpu") -> WorldModel:
    """Read a published world model.

    Raises:
        BadCheckpoint: If the folder is missing, damaged, of a newer format, or does not describe a world model whose
            parts fit each other.
    """
    with open_checkpoint(folder) as opened:
        config, seal = opened.config, opened.fingerprint
        for kind in COMPANIONS:
            if kind in config and "system" not in config:
                raise BadCheckpoint(f"{folder} holds a {kind}, not a world model: it goes with {kind}={folder}")
        try:
            interface = interface_of(config)
            specs = _specs(config)
        except MISFITS as error:
            raise BadCheckpoint(f"{folder} does not describe a world model of this version: {error}") from error
        objectives = restore(opened, specs, str(folder), kind="world model", form=DynamicsObjective)
        for objective in objectives:
            objective.eval().requires_grad_(False)
    try:
        models = [as_world_model(objective, interface, fingerprint=seal) for objective in objectives]
        model = as_ensemble(models, fingerprint=seal) if SYSTEMS in config else models[0]
        _try_out(model)
    except BadCheckpoint:
        raise
    except MISFITS as error:
        said = f"{len(interface.cameras)} x {interface.image_size} px, {len(interface.actions)} action axes"
        raise BadCheckpoint(f"the network in {folder} does not fit its own interface ({said}): {error}") from error
    for objective in objectives:
        objective.to(device)
    return model


def load_system(folder: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The objective of any trained system, frozen, and the configuration that it was published with.

    Raises:
        BadCheckpoint: If the folder is missing, damaged, of a newer format, or describes no system of this version.
    """
    objective, config = load_network(folder, kind="system", form=nn.Module)
    return objective.eval().requires_grad_(False), config


def save_ensemble(folder: str | Path, members: Sequence[str | Path]) -> None:
    """Publish several saved world models of one robot as one.

    Args:
        folder: Where; replaced as a whole, never half written.
        members: Folders of the world models, each of a single network.

    Raises:
        BadCheckpoint: If one cannot be read, is an ensemble itself, or is of another robot.
    """
    save_checkpoint(folder, *join_members(members))


def join_members(members: Sequence[str | Path]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and configuration of several saved world models as one ensemble.

    Raises:
        BadCheckpoint: As `save_ensemble`.
    """
    as_ensemble([load_world_model(member) for member in members])
    tensors: dict[str, Tensor] = {}
    configs = []
    for index, member in enumerate(members):
        weights, config = load_checkpoint(member)
        if SYSTEMS in config:
            raise BadCheckpoint(f"{member} is an ensemble itself: name its members")
        tensors |= {f"{index}.{name}": weight for name, weight in weights.items()}
        configs.append(config)
    together = {
        SYSTEMS: [config["system"] for config in configs],
        "interface": configs[0]["interface"],
        "training": {"members": [config["training"] for config in configs]},
    }
    return tensors, together


def interface_of(config: Mapping[str, Any]) -> Interface:
    """What the configuration of a checkpoint says of the robot."""
    facts = config["interface"]
    return Interface(
        cameras=tuple(facts["cameras"]),
        image_size=int(facts["image_size"]),
        actions=tuple(facts["actions"]),
        dt_s=float(facts["dt_s"]),
        log=str(facts.get("log", "")),
        robot=dict(facts.get("robot") or {}),
        embodiment=str(facts.get("embodiment", "")),
    )


def _specs(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of each network by the beginning of its tensors' names."""
    if SYSTEMS not in config:
        return {"": config["system"]}
    return {f"{index}.": system for index, system in enumerate(config[SYSTEMS])}


def _try_out(model: WorldModel) -> None:
    """See one black picture and imagine one step."""
    known = model.interface
    if len(known.cameras) * known.image_size**2 > LARGEST_VIEW:
        raise ValueError(f"at most {LARGEST_VIEW} pixels are seen at a time")
    frames = torch.zeros(1, 1, 3 * len(known.cameras), known.image_size, known.image_size, dtype=torch.uint8)
    node = model.objective.predictor.felt if isinstance(model.objective, ObjectObjective) else None
    felt = None if node is None else torch.zeros(1, 1, node.inputs)
    latents = model.perception(Observation(frames=frames, cameras=known.cameras, proprio=felt))
    if model.metres is not None:
        model.metres(latents)
    actions = torch.zeros(1, 1, 1, len(known.actions))
    part = model.objective.predictor.proprio
    proprio = None if part is None else torch.zeros(1, 1, part.width)
    model.dynamics.rollout(Context(latents=latents, actions=actions[:, 0, :0], proprio=proprio), actions)
