"""The robot adapter: converts between a robot's images, columns and commands and those of a world model.

The input side turns the robot's images and columns into an Observation exactly as for the training log. The output side
turns the agent's action into the robot's own command, in the robot's columns and units. A checkpoint contains all
that the adapter needs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jepa_mpc.checkpoint import open_checkpoint
from jepa_mpc.errors import BadCheckpoint, BadObservation
from jepa_mpc.interfaces import Agent
from jepa_mpc.places import CHECKPOINTS
from jepa_mpc.trajectories.actions import ActionPart, CommandedActions, PoseDelta, action_part, describe
from jepa_mpc.trajectories.columns import base_name
from jepa_mpc.trajectories.episode import ACTION, EE_POSE, GRIPPER, IMAGES, STATE, TIMESTAMP
from jepa_mpc.trajectories.resizing import PictureFit
from jepa_mpc.trajectories.robots import RobotMap, robot_map
from jepa_mpc.trajectories.stats import Stats, stats_from
from jepa_mpc.trajectories.windows import Blocks, stack_cameras
from jepa_mpc.types import ActionBox, Observation

HOUSE = (STATE, EE_POSE, GRIPPER, ACTION)
STILL = 1e-6  # an axis that varies less in the log is held at its current value
Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class RobotAdapter:
    """Converts between a robot's images, columns and commands and those of a world model.

    Args:
        robot: The meaning of the robot's columns.
        actions: What counts as an action.
        picture: How images are resized to the training size.
        cameras: Cameras in stacking order.
        step_s: Seconds between two observations.
        skip: Log steps from one observation to the next.
        blocks: Whether an action of the model is one `joined` action, or `skip` of them `stacked`.
        statistics: Of actions and proprioception in the training log, under `actions` and `proprio`.
    """

    robot: RobotMap
    actions: ActionPart = field(default_factory=PoseDelta)
    picture: PictureFit = field(default_factory=PictureFit)
    cameras: tuple[str, ...] = ()
    step_s: float = 0.0
    skip: int = 1
    blocks: Blocks = "joined"
    statistics: Mapping[str, Stats] = field(default_factory=dict)

    def observe(self, pictures: Columns, columns: Columns | None = None) -> Observation:
        """The agent's observation at one moment.

        Args:
            pictures: Camera to `h w 3` (uint8, RGB) of any size: by its name, or by the keys of LeRobot and DROID's
                clients
                (`observation.images.NAME`, `observation/NAME`).
            columns: The robot's own columns, one step each, by their names in the log (`/` counts as `.`); None gives
                no
                proprioception.

        Raises:
            BadObservation: If a camera or column is missing, an image has another shape or dtype, or a column another
                width or numbers that are not finite.
        """
        frames = stack_cameras({IMAGES + name: self._picture(pictures, name) for name in self.cameras},
                               [IMAGES + name for name in self.cameras])  # fmt: skip
        proprio = None if columns is None else torch.from_numpy(self._house(columns, (STATE,))[STATE])[None]
        return Observation(frames=torch.from_numpy(frames)[None], cameras=self.cameras, proprio=proprio)

    def commands(self, action: np.ndarray, columns: Columns) -> dict[str, np.ndarray]:
        """An action of the model as a command of the robot.

        Args:
            action: `A` numbers in physical units.
            columns: The robot's own columns at this moment, one step each.

        Returns:
            For commanded actions: the robot's command. For measured motion: the target pose and gripper (or joints)
            after the
            action, in the robot's own columns and units; a column that consists of pose and gripper is returned whole
            as
            well. Each `k width`; k is 1 unless actions are stacked blocks.

        Raises:
            BadObservation: If a column is missing, of another width, or not finite.
        """
        each = action.reshape(self.skip if self.blocks == "stacked" else 1, -1)
        if isinstance(self.actions, CommandedActions):
            plain = self.actions.column != ACTION
            return {self.actions.column: each.astype(np.float64) if plain else self.robot.command(each)}
        step_s = self.step_s / self.skip if self.blocks == "stacked" else self.step_s
        first = self._house(columns, [name for name in self.actions.needs if name != TIMESTAMP])
        first |= {TIMESTAMP: np.arange(len(each) + 1) * step_s}
        reached = {name: rows[1:] for name, rows in self.actions.follow(first, each).items()}
        own = {name: rows for name, rows in reached.items() if name not in (EE_POSE, GRIPPER)}
        return self.robot.undo(reached) | own

    def box(self, *, margin: float = 1.0) -> ActionBox:
        """The range of actions in the log, as planning limits when the robot's own are unknown.

        Args:
            margin: Allowed share of the range, about its middle.

        Raises:
            ValueError: If the statistics of the actions are missing.
        """
        if "actions" not in self.statistics:
            raise ValueError("this adapter has no statistics of the actions: give the robot's limits as an ActionBox")
        seen = self.statistics["actions"]
        middle, half = (seen.low + seen.high) / 2, margin * (seen.high - seen.low) / 2
        still = seen.high - seen.low < STILL
        return ActionBox(low=torch.where(still, seen.mean, middle - half), high=torch.where(still, seen.mean,
                         middle + half))  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """A JSON value for the interface of a checkpoint, without the statistics; `robot_adapter_from` reads it."""
        return {
            "map": self.robot.to_dict(), "actions": describe(self.actions), "picture": self.picture.to_dict(),  # type: ignore[arg-type]
            "cameras": list(self.cameras), "step_s": self.step_s, "skip": self.skip, "blocks": self.blocks,
        }  # fmt: skip

    def _picture(self, pictures: Columns, camera: str) -> np.ndarray:
        spellings = (camera, IMAGES + camera, f"observation/{camera}", f"observation.{camera}")
        picture = next((pictures[name] for name in spellings if name in pictures), None)
        if picture is None:
            raise BadObservation(f"there is no image of camera {camera!r}, only of {', '.join(pictures) or 'none'}")
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
            hint = ": move the channels behind the width" if picture.ndim == 3 and picture.shape[0] == 3 else ""
            raise BadObservation(
                f"camera {camera!r} must give uint8 images (h, w, 3), got {picture.dtype} {picture.shape}{hint}"
            )
        return self.picture(picture[None])

    def _house(self, columns: Columns, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The schema's columns of one step, `1 ...` each."""
        rows = {name.replace("/", "."): np.atleast_1d(value)[None] for name, value in columns.items()}
        needed = [base_name(need) for name in names for need in (self.robot.needs(name) or (name,))]
        missing = [name for name in dict.fromkeys(needed) if name not in rows]
        if missing:
            raise BadObservation(f"the robot's columns lack {', '.join(missing)}; given are {', '.join(columns)}")
        try:
            numbers = {name: rows[name].astype(np.float64) for name in needed}
        except (TypeError, ValueError) as error:
            raise BadObservation(f"the robot's columns must hold numbers ({error})") from error
        broken = [name for name, value in numbers.items() if not np.isfinite(value).all()]
        if broken:
            raise BadObservation(f"numbers in {', '.join(broken)} are not finite: hold the robot still")
        asked = [name for name in names if name in HOUSE and (name == STATE or self.robot.needs(name))]
        try:
            made = self.robot(rows, asked)
        except ValueError as error:
            raise BadObservation(f"a column has not the width that the log had ({error})") from error
        return made | {name: rows[name] for name in names if name not in made}


class RobotAgent:
    """An agent whose inputs and outputs are the robot's own images, columns and commands.

    Args:
        agent: Plans in the world model.
        adapter: Converts images, columns and commands.
        feels: Whether the agent gets proprioception; without it, only the columns of commands are required.
    """

    def __init__(self, agent: Agent, adapter: RobotAdapter, *, feels: bool = True) -> None:
        self.agent, self.adapter, self.feels = agent, adapter, feels

    def reset(self, goal: Columns, columns: Columns | None = None) -> None:
        """Begin an episode towards the goal images, camera name to `h w 3`."""
        self.agent.reset(self.adapter.observe(goal, columns if self.feels else None))

    def act(self, pictures: Columns, columns: Columns) -> dict[str, np.ndarray]:
        """The robot's next command; see `RobotAdapter.commands`."""
        action = self.agent.act(self.adapter.observe(pictures, columns if self.feels else None))
        return self.adapter.commands(action[0].cpu().numpy(), columns)


def robot_adapter_from(value: Mapping[str, Any], *, statistics: Mapping[str, Any] | None = None) -> RobotAdapter:
    """Build the adapter that `RobotAdapter.to_dict` described.

    Args:
        value: The result of `to_dict`.
        statistics: The results of `Stats.to_dict` for `actions` and `proprio`, if available.

    Raises:
        ValueError: If an entry is missing or altered.
    """
    try:
        return RobotAdapter(
            robot=robot_map(value["map"]), actions=action_part(value["actions"]),
            picture=PictureFit(**value["picture"]), cameras=tuple(value["cameras"]), step_s=float(value["step_s"]),
            skip=int(value["skip"]), blocks=value["blocks"],
            statistics={name: stats_from(one) for name, one in (statistics or {}).items()},
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise ValueError(f"this does not describe the adapter of a robot: {error!r}") from error


def load_robot_adapter(checkpoint: str | Path) -> RobotAdapter:
    """The adapter in a checkpoint.

    Args:
        checkpoint: A folder, the name of a shipped checkpoint, or `hf://owner/name`.

    Raises:
        BadCheckpoint: If the checkpoint is damaged or was trained before checkpoints carried robot adapters.
    """
    with open_checkpoint(checkpoint) as opened:
        config, fingerprint = opened.config, opened.fingerprint
    value, statistics = config.get("interface", {}).get("robot"), config.get("training", {}).get("statistics")
    if not value:
        value, statistics = _shipped_without(fingerprint, config)
    if not value:
        raise BadCheckpoint(f"{checkpoint} does not say how its log was read: train it again with train.py")
    try:
        return robot_adapter_from(value, statistics=statistics)
    except ValueError as error:
        raise BadCheckpoint(f"{checkpoint}: {error}") from error


def _shipped_without(fingerprint: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Adapter and statistics of a shipped checkpoint that is older than adapters; empty for any other."""
    facts = json.loads((CHECKPOINTS / "adapters.json").read_text(encoding="utf-8"))
    if fingerprint not in facts["checkpoints"]:
        return {}, {}
    sees = config["interface"]
    picture = facts["robot"]["picture"] | {"size": sees["image_size"]}
    return facts["robot"] | {"cameras": sees["cameras"], "picture": picture}, facts["statistics"]
