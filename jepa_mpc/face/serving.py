"""Assembles a policy server from checkpoint, robot, goal and settings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa_mpc import __version__, envs
from jepa_mpc.face.agents import CalibratedSettings
from jepa_mpc.face.goals import goal_observation
from jepa_mpc.face.loading import AgentKind, known_kind, load_agent, load_world_model, usual_kind
from jepa_mpc.serving.session import DEADLINE, START, TIME, Keys, ServedAgent, Session
from jepa_mpc.trajectories.resizing import PictureFit
from jepa_mpc.trajectories.robot_adapter import load_robot_adapter
from jepa_mpc.types import ActionBox, Observation
from jepa_mpc.world_model.checkpoints.keypoints import load_hand_points
from jepa_mpc.world_model.dynamics.model import WorldModel

PROTOCOL = 1


@dataclass(frozen=True, kw_only=True)
class ServedRobot:
    """A robot without a simulation.

    Args:
        cameras: Names of its cameras.
        image_size: Width and height to which its images are resized (px).
        dt_s: Seconds per action.
        action_box: Bounds of one action.
        embodiment: Its name, or an empty string.
    """

    cameras: tuple[str, ...]
    image_size: int
    dt_s: float
    action_box: ActionBox
    embodiment: str = ""


@dataclass(frozen=True, kw_only=True)
class Service:
    """Arguments of a server.

    Args:
        begin: Makes the session of a connection.
        metadata: Sent to every client on connection.
    """

    begin: Callable[[], Session]
    metadata: dict[str, Any]


def service(
    checkpoint: str | Path,
    *,
    robot: str = "reach-v1",
    goal: Sequence[str | Path] = (),
    images: Sequence[str] = ("observation/image", "observation/wrist_image"),
    goals: Sequence[str] = ("goal/image", "goal/wrist_image"),
    state: Sequence[str] = ("observation/state",),
    kind: AgentKind | None = None,
    deadline_ms: float = float("inf"),
    max_age_ms: float = float("inf"),
    seed: int = 0,
    device: str = "cpu",
    **planning: Any,
) -> Service:
    """One agent per connection; all share the weights.

    Args:
        checkpoint: The world model, as `load_world_model` takes it.
        robot: The robot that defines the action bounds: the name of a task, or "log" for the range in the training log.
        goal: One image per camera, or `log:episode:frame`; none if every client sends its own.
        images: Request entry of each camera, in the checkpoint's order; further ones are ignored.
        goals: Request entry of each goal image, in the same order.
        state: Entries that form the proprioception, if the world model needs it.
        kind: "simple" or "calibrated"; by default chosen by the checkpoint (see `load_agent`).
        deadline_ms: Time limit per answer, unless a request asks for less.
        max_age_ms: Maximum delay of an observation (see `Session`).
        seed: Seed of the planner; incremented with each connection.
        device: Device of the networks.
        **planning: `planner`, `horizon`, `effort`, `hold_m` of `load_agent`.

    Raises:
        BadCheckpoint: If the checkpoint cannot be read or was trained for another robot.
        BadObservation: If the goal cannot be read.
        UnknownName: If there is no such kind of agent.
        ValueError: If the entries do not match the cameras, or a time limit is not positive.
    """
    model = load_world_model(checkpoint, device=device)
    kind = known_kind(kind or usual_kind(model))
    for name, limit_ms in (("deadline_ms", deadline_ms), ("max_age_ms", max_age_ms)):
        if not limit_ms > 0:
            raise ValueError(f"{name} must be above 0, got {limit_ms}")
    facts = _robot(model, robot, checkpoint=checkpoint, kind=kind)
    keypoints = load_hand_points("hand_points", device=device) if kind == "calibrated" else "hand_points"
    count, seeds = len(facts.cameras), itertools.count(seed)
    fit = PictureFit(size=facts.image_size)
    keys = Keys(
        cameras=facts.cameras,
        images=tuple(images)[:count],
        goals=tuple(goals)[:count],
        state=tuple(state) if model.needs_proprio else (),
    )
    aim = goal_observation(goal, cameras=facts.cameras, image_size=facts.image_size) if goal else None

    def agent() -> ServedAgent:
        made = load_agent(facts, model, kind=kind, keypoints=keypoints, seed=next(seeds), device=device, **planning)
        return made.agent

    agent()  # raises configuration errors before the first client connects
    return Service(
        begin=lambda: Session(
            agent(), keys, fit=fit, goal=aim, deadline_s=deadline_ms / 1000, max_age_s=max_age_ms / 1000
        ),
        metadata=_metadata(model, facts, keys, goal=aim),
    )


def _robot(model: WorldModel, name: str, *, checkpoint: str | Path, kind: AgentKind) -> ServedRobot:
    known = model.interface
    size = CalibratedSettings().picture_px(known.image_size) if kind == "calibrated" else known.image_size
    common: dict[str, Any] = {"cameras": known.cameras, "image_size": size}
    if name != "log":
        env = envs.make(name, cameras=())
        try:
            told = getattr(env, "embodiment", "")
            return ServedRobot(action_box=env.action_box, dt_s=env.dt_s, embodiment=told, **common)
        finally:
            env.close()
    return ServedRobot(
        action_box=load_robot_adapter(checkpoint).box(),
        dt_s=known.dt_s,
        embodiment=known.embodiment,
        **common,
    )


def _metadata(model: WorldModel, robot: ServedRobot, keys: Keys, *, goal: Observation | None) -> dict[str, Any]:
    """What a client must know before its first request, as plain strings, numbers and lists."""
    box = robot.action_box
    return {
        "server": f"jepa-mpc {__version__}",
        "protocol": PROTOCOL,
        "checkpoint": model.fingerprint,
        "rate_hz": 1 / robot.dt_s,
        "execute": 1,
        "actions": {"names": list(model.interface.actions), "low": box.low.tolist(), "high": box.high.tolist()},
        "cameras": list(robot.cameras),
        "image_size": robot.image_size,
        "keys": {
            "images": list(keys.images),
            "goals": list(keys.goals),
            "state": list(keys.state),
            "optional": [START, TIME, DEADLINE],
        },
        "has_goal": goal is not None,
    }
