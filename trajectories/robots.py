"""Robot maps: convert the columns of a robot's log to the schema, in SI units, and back.

A reader returns the columns of the file unchanged. A `RobotMap` declares which of them are pose, gripper, state and
command, with their units and form; a `MappedLog` is the log with the map applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.columns import base_name, joined, take, width
from jepa_mpc.trajectories.episode import (
    ACTION,
    COLUMNS,
    DONE,
    EE_POSE,
    EPISODE_INDEX,
    FRAME_INDEX,
    GRIPPER,
    IMAGES,
    STATE,
    TASK_INDEX,
    TIMESTAMP,
)
from jepa_mpc.trajectories.formats.base import Log, fault, timestamps
from jepa_mpc.trajectories.guards import RATES_HZ
from jepa_mpc.trajectories.rotations import euler_of_quaternion, quaternion, quaternion_of_euler, rotation_vector

RotationForm = Literal["rotation_vector", "euler_xyz", "quaternion_xyzw", "quaternion_wxyz"]
ROTATION_WIDTH = {"rotation_vector": 3, "euler_xyz": 3, "quaternion_xyzw": 4, "quaternion_wxyz": 4}
COUNTERS = (TIMESTAMP, FRAME_INDEX, EPISODE_INDEX, TASK_INDEX, DONE)


@dataclass(frozen=True, kw_only=True)
class RobotMap:
    """The meaning and the units of a log's columns.

    A column may be sliced: `observation.state[0:7]`. An empty name means that the log does not have it.

    Args:
        state: Columns that are concatenated to the proprioception; columns of the schema are allowed.
        position: Position of the end effector in the base frame, three numbers.
        rotation: Its orientation in the base frame.
        rotation_form: `rotation_vector`, `euler_xyz` (roll, pitch, yaw about fixed axes), `quaternion_xyzw` or
            `quaternion_wxyz`.
        gripper: Gripper opening, one number.
        action: Columns that are concatenated to the command.
        metre: One unit of the log's positions in m (0.001 for millimetres).
        radian: One unit of its angles in rad (pi / 180 for degrees).
        gripper_scale: Factor from the log's gripper number to the schema's.
        gripper_offset: Added after the factor.
        action_scale: Factor of each command axis to physical units; empty for 1.
        hz: Steps per second, if the log does not declare them.

    Raises:
        ValueError: If the form is unknown, a factor is zero or not finite, or `hz` is out of range.
    """

    state: tuple[str, ...] = (STATE,)
    position: str = ""
    rotation: str = ""
    rotation_form: RotationForm = "rotation_vector"
    gripper: str = ""
    action: tuple[str, ...] = (ACTION,)
    metre: float = 1.0
    radian: float = 1.0
    gripper_scale: float = 1.0
    gripper_offset: float = 0.0
    action_scale: tuple[float, ...] = field(default=())
    hz: float | None = None

    def __post_init__(self) -> None:
        if self.rotation_form not in ROTATION_WIDTH:
            raise ValueError(f"rotation_form must be one of {', '.join(ROTATION_WIDTH)}, got {self.rotation_form!r}")
        factors = (self.metre, self.radian, self.gripper_scale, *self.action_scale)
        if not np.isfinite(factors).all() or 0.0 in factors or not np.isfinite(self.gripper_offset):
            raise ValueError(f"factors must be finite and not zero, got {factors}")
        if self.hz is not None and not RATES_HZ[0] <= self.hz <= RATES_HZ[1]:
            raise ValueError(f"hz must lie between {RATES_HZ[0]:g} and {RATES_HZ[1]:g} steps per second, got {self.hz}")
        if bool(self.position) != bool(self.rotation):
            raise ValueError("a pose needs both position and rotation")

    def needs(self, name: str) -> tuple[str, ...]:
        """The log's columns that one schema column is computed from (empty: it is passed on unchanged)."""
        made = {EE_POSE: (self.position, self.rotation), GRIPPER: (self.gripper,), ACTION: self.action}
        if name == STATE:
            parts = [self.needs(part) or (part,) if part in made else (part,) for part in self.state]
            return tuple(dict.fromkeys(base_name(one) for part in parts for one in part))
        return tuple(base_name(one) for one in made.get(name, ()) if one)

    def __call__(self, columns: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        """The log's columns in, the named schema columns (float32, SI units) out."""
        makers = {EE_POSE: self._pose, GRIPPER: self._gripper, ACTION: self._action, STATE: self._state}
        return {name: makers[name](columns) for name in names if name in makers}

    def undo(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The inverse for pose, gripper and command: schema columns in, the log's own (float64) out.

        Slices that cover a column without a gap, from its first axis on, are also returned as that column. For a
        command
        that is concatenated from several columns, use `command`.
        """
        found = {}
        if self.position and EE_POSE in columns:
            pose = columns[EE_POSE].astype(np.float64)
            found[self.position] = pose[:, :3] / self.metre
            found[self.rotation] = _from_vector(pose[:, 3:], self.rotation_form, self.radian)
        if self.gripper and GRIPPER in columns:
            found[self.gripper] = (columns[GRIPPER].astype(np.float64) - self.gripper_offset) / self.gripper_scale
        found |= joined(found)
        if len(self.action) == 1 and ACTION in columns:
            found[self.action[0]] = self.command(columns[ACTION])
        return found

    def command(self, actions: np.ndarray) -> np.ndarray:
        """Physical actions `T A` in the robot's command units (float64)."""
        return actions.astype(np.float64) / (self.action_scale or 1.0)

    def to_dict(self) -> dict[str, Any]:
        """A JSON value for a checkpoint; `robot_map` reads it."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def _pose(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        place = take(columns, self.position).astype(np.float64) * self.metre
        turn = _to_vector(take(columns, self.rotation).astype(np.float64), self.rotation_form, self.radian)
        return np.concatenate([place, turn], axis=1).astype(np.float32)

    def _gripper(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        opening = take(columns, self.gripper)
        if (self.gripper_scale, self.gripper_offset) == (1.0, 0.0):
            return opening.astype(np.float32)
        return (opening.astype(np.float64) * self.gripper_scale + self.gripper_offset).astype(np.float32)

    def _action(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        command = np.concatenate([take(columns, part) for part in self.action], axis=1)
        return (command.astype(np.float64) * self.action_scale if self.action_scale else command).astype(np.float32)

    def _state(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        made = {EE_POSE: self._pose, GRIPPER: self._gripper}
        return np.concatenate(
            [
                made[part](columns) if self.makes(part) else take(columns, part).astype(np.float32)
                for part in self.state
            ],
            axis=1,
        )

    def makes(self, name: str) -> bool:
        """Whether pose or gripper is computed from the log's columns."""
        return (name == EE_POSE and bool(self.position)) or (name == GRIPPER and bool(self.gripper))


HAND = (GRIPPER, EE_POSE)
ROBOTS: dict[str, RobotMap] = {
    "house": RobotMap(position=f"{EE_POSE}[0:3]", rotation=f"{EE_POSE}[3:6]", gripper=GRIPPER),
    "droid": RobotMap(
        state=("observation.joint_positions", *HAND),
        position="observation.cartesian_position[0:3]",
        rotation="observation.cartesian_position[3:6]",
        rotation_form="euler_xyz",
        gripper="observation.gripper_position",
        action=("action.cartesian_velocity", "action.gripper_velocity"),
        hz=15.0,
    ),
    "droid_lerobot": RobotMap(
        state=("observation.state.joint_position", *HAND),
        position="observation.state.cartesian_position[0:3]",
        rotation="observation.state.cartesian_position[3:6]",
        rotation_form="euler_xyz",
        gripper="observation.state.gripper_position",
    ),
    "robomimic": RobotMap(
        state=("observation.robot0_joint_pos", *HAND),
        position="observation.robot0_eef_pos",
        rotation="observation.robot0_eef_quat",
        rotation_form="quaternion_xyzw",
        gripper="observation.robot0_gripper_qpos[0:1]",
        action_scale=(0.05, 0.05, 0.05, 0.5, 0.5, 0.5, 1.0),
        hz=20.0,
    ),
    "pose": RobotMap(
        state=HAND,
        position="pose[0:3]",
        rotation="pose[3:6]",
        rotation_form="euler_xyz",
        gripper="pose[6:7]",
        action=("command",),
    ),
    "joints": RobotMap(),
}


class MappedLog:
    """A log with a robot map applied: the columns of the schema, including times and counters.

    Args:
        log: A log from a reader.
        robot: The map; guessed from the log's columns by default.

    Raises:
        ValueError: If the map names columns that the log does not have.
    """

    def __init__(self, log: Log, *, robot: RobotMap | None = None) -> None:
        self.log, self.robot = log, guess_robot(log) if robot is None else robot
        self.format, self.path, self.cameras, self.lengths = log.format, log.path, log.cameras, log.lengths
        self.damaged = log.damaged
        self.dt_s = 1.0 / self.robot.hz if self.robot.hz else log.dt_s
        self.fields: Mapping[str, Field] = self._fields()

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Steps start..stop-1 of the named fields of the schema or of the log.

        Raises:
            BadEpisode: If a file is damaged.
            IndexError: If the range is empty or exceeds the episode.
        """
        made = [name for name in names if name in self.made]
        counted = [name for name in names if name in self.counted]
        needed = [need for name in made for need in self.robot.needs(name)]
        own = [name for name in names if name not in made and name not in counted]
        if TIMESTAMP in own and TIMESTAMP not in self.log.fields:
            remedy = "give its steps per second: robot.hz=..."
            raise fault(self.path, field=TIMESTAMP, problem="is not in this log", remedy=remedy, episode=episode)
        clock = [TIMESTAMP] if TIMESTAMP in counted and TIMESTAMP in self.log.fields else []  # checked even if not used
        columns = self.log.read(episode, start, stop, list(dict.fromkeys([*own, *needed, *clock])))
        found = self.robot(columns, made) | {name: columns[name] for name in own}
        found |= {name: self._count(name, episode, start, stop) for name in counted}
        return {name: found[name] for name in names}

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the reader skipped or found at another path than declared."""
        return self.log.remarks

    def metadata(self, index: int) -> dict[str, Any]:
        """The log's metadata of one episode."""
        return self.log.metadata(index)

    def sources(self, index: int) -> tuple[Path, ...]:
        """The files that one episode is read from."""
        return self.log.sources(index)

    def _fields(self) -> dict[str, Field]:
        sizes = {name: declared.shape for name, declared in self.log.fields.items()}
        found = {name: self.log.fields[name] for name in self.log.fields if name.startswith(IMAGES)}
        self.made = [name for name in (STATE, EE_POSE, GRIPPER, ACTION) if self._has(name)]
        hz = 1.0 / self.dt_s if self.dt_s > 0 else None
        for name in self.made:
            found[name] = Field((self._width(name, sizes),), "float32", self._unit(name), hz, self._names(name))
        timed = TIMESTAMP in self.log.fields and not self.robot.hz
        wanted = [name for name in COUNTERS if name != TIMESTAMP or (self.dt_s > 0 and not timed)]
        self.counted = [n for n in wanted if n not in self.log.fields or self.log.fields[n].shape or n == EPISODE_INDEX]
        self.counted += [TIMESTAMP] if timed is False and self.dt_s > 0 and TIMESTAMP not in self.counted else []
        for name in self.counted:
            found[name] = Field((), COLUMNS[name][0], COLUMNS[name][3], hz)
        found |= {other: declared for other, declared in self.log.fields.items() if other not in found}
        return {name: replace(declared, hz=hz) for name, declared in found.items()}

    def _unit(self, name: str) -> str:
        """Units of the columns that a command consists of, if the log declares them; else those of the schema."""
        told = [self.log.fields[need].unit for need in self.robot.needs(ACTION)] if name == ACTION else []
        return ", ".join(unit for unit in told if unit) or COLUMNS[name][3]

    def _names(self, name: str) -> Any:
        """The log's axis names of one of its own columns."""
        parts = {STATE: self.robot.state, ACTION: self.robot.action}.get(name, ())
        whole = self.log.fields.get(parts[0]) if len(parts) == 1 else None
        return None if whole is None else whole.names

    def _has(self, name: str) -> bool:
        if name == STATE:
            return bool(self.robot.state)
        return bool(self.robot.needs(name)) and (
            name != ACTION or set(self.robot.needs(name)) <= self.log.fields.keys()
        )

    def _width(self, name: str, sizes: Mapping[str, tuple[int, ...]]) -> int:
        robot = self.robot
        if name == STATE:
            return sum(self._width(p, sizes) if robot.makes(p) else width(p, sizes) for p in robot.state)
        if name == EE_POSE:
            wanted = ROTATION_WIDTH[robot.rotation_form]
            if (width(robot.position, sizes), width(robot.rotation, sizes)) != (3, wanted):
                raise ValueError(f"a pose needs 3 and {wanted} numbers, see {robot.position!r} and {robot.rotation!r}")
            return 6
        found = width(robot.gripper, sizes) if name == GRIPPER else sum(width(part, sizes) for part in robot.action)
        if name == GRIPPER and found != 1:
            raise ValueError(f"the gripper needs one number, {robot.gripper!r} has {found}")
        if name == ACTION and robot.action_scale and len(robot.action_scale) != found:
            raise ValueError(f"action_scale has {len(robot.action_scale)} numbers, {robot.action!r} has {found}")
        return found

    def _count(self, name: str, episode: int, start: int, stop: int) -> np.ndarray:
        steps, last = np.arange(start, stop, dtype=np.int64), self.lengths[episode] - 1
        made = {
            TIMESTAMP: timestamps(start, stop, self.dt_s),
            FRAME_INDEX: steps,
            EPISODE_INDEX: np.full_like(steps, episode),
            TASK_INDEX: np.zeros_like(steps),
            DONE: steps == last,
        }
        return made[name]


def guess_robot(log: Log) -> RobotMap:
    """The map of the first known robot whose columns the log has; other logs keep their state and action."""
    for robot in ROBOTS.values():
        names = {base_name(c) for c in (*robot.needs(STATE), robot.position, robot.gripper) if c}
        if robot.position and names <= log.fields.keys():
            return RobotMap(**{**_arguments(robot), "hz": robot.hz if log.dt_s <= 0 else None})
    vectors = [
        name for name, declared in log.fields.items() if name.startswith("observation.") and len(declared.shape) == 1
    ]
    return RobotMap(state=(STATE,) if STATE in log.fields else tuple(vectors))


def chosen_map(log: Log, given: Mapping[str, Any] | None) -> RobotMap:
    """The guessed map of a log, with the given entries that are not None replaced."""
    told = {str(key): value for key, value in (given or {}).items() if value is not None}
    return robot_map({**guess_robot(log).to_dict(), **told})


def robot_map(description: Mapping[str, Any]) -> RobotMap:
    """Build the map that `to_dict` described.

    Raises:
        ValueError: If it has unknown entries.
    """
    known = {one.name for one in fields(RobotMap)}
    if not description.keys() <= known:
        raise ValueError(f"a robot map takes {', '.join(sorted(known))}; got {', '.join(sorted(description))}")
    arguments: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in description.items()
    }
    return RobotMap(**arguments)


def _arguments(robot: RobotMap) -> dict[str, Any]:
    return {one.name: getattr(robot, one.name) for one in fields(robot)}


def _to_vector(rotation: np.ndarray, form: str, radian: float) -> np.ndarray:
    """Rotation vectors `T 3` in rad."""
    if form == "rotation_vector":
        return rotation * radian
    if form == "euler_xyz":
        return rotation_vector(quaternion_of_euler(rotation * radian))
    if form == "quaternion_xyzw":
        rotation = np.roll(rotation, 1, axis=-1)
    return rotation_vector(rotation / np.linalg.norm(rotation, axis=-1, keepdims=True))


def _from_vector(vector: np.ndarray, form: str, radian: float) -> np.ndarray:
    if form == "rotation_vector":
        return vector / radian
    if form == "euler_xyz":
        return euler_of_quaternion(quaternion(vector)) / radian
    return np.roll(quaternion(vector), -1, axis=-1) if form == "quaternion_xyzw" else quaternion(vector)
