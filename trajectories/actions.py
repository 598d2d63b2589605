"""The action between two recorded steps: either the command that was sent, or the measured motion.

Each action part also inverts: from a first step and the following actions it computes the later steps. `describe`
stores the part in a checkpoint, and `action_part` builds it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from jepa_mpc.errors import choose
from jepa_mpc.trajectories.columns import base_name, take
from jepa_mpc.trajectories.episode import ACTION, EE_POSE, FRAME_INDEX, GRIPPER, GRIPPER_COMMAND, STATE, TIMESTAMP
from jepa_mpc.trajectories.rotations import (
    apply_rotation,
    euler_of_quaternion,
    quaternion,
    quaternion_of_euler,
    rotation_between,
    rotation_vector,
)

Columns = Mapping[str, np.ndarray]
Joined = Literal["sum", "mean", "never"]


class ActionPart(Protocol):
    """Turns the columns of T steps into the T - 1 actions between them."""

    @property
    def name(self) -> str:
        """The part's name in `ACTION_PARTS`."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns that it reads."""

    @property
    def joined(self) -> Joined:
        """How several actions combine into one: by their sum (motions), their mean (velocities), or not at all."""

    def __call__(self, columns: Columns) -> np.ndarray:
        """Columns of T steps in, actions `T-1 A` (float32, physical units) out."""

    def follow(self, first: Columns, actions: np.ndarray) -> dict[str, np.ndarray]:
        """Integrate actions `T-1 A` from the first step (columns of one step); returns the columns of all T steps."""


@dataclass(frozen=True)
class CommandedActions:
    """The commanded actions. The last of T leads to no recorded step and is dropped.

    Args:
        column: The column that holds them.
    """

    column: str = ACTION
    name: ClassVar[str] = "commanded"
    joined: ClassVar[Joined] = "sum"

    @property
    def needs(self) -> tuple[str, ...]:
        """The column of the commands."""
        return (base_name(self.column),)

    def __call__(self, columns: Columns) -> np.ndarray:
        """Columns of T steps in, actions `T-1 A` out."""
        return take(columns, self.column)[:-1].astype(np.float32)

    def follow(self, first: Columns, actions: np.ndarray) -> dict[str, np.ndarray]:
        """The commands themselves; the last step has none and is filled with zeros."""
        return {self.column: np.concatenate([actions, np.zeros_like(actions[:1])])}


@dataclass(frozen=True)
class PoseDelta:
    """The measured motion of the end effector, as in V-JEPA 2-AC (arXiv:2506.09985, section 3.1).

        a_t = (x_{t+1} - x_t,  rotation vector of R_{t+1} R_t^T,  g_{t+1} - g_t)

    Metres, radians and gripper opening; positions and rotations in the base frame.
    """

    name: ClassVar[str] = "pose_delta"
    joined: ClassVar[Joined] = "sum"
    needs: ClassVar[tuple[str, ...]] = (EE_POSE, GRIPPER)

    def __call__(self, columns: Columns) -> np.ndarray:
        """Columns of T steps in, actions `T-1 7` out."""
        pose, gripper = columns[EE_POSE].astype(np.float64), columns[GRIPPER].astype(np.float64)
        moved = np.diff(pose[:, :3], axis=0)
        turned = rotation_between(pose[:-1, 3:], pose[1:, 3:])
        return np.concatenate([moved, turned, np.diff(gripper, axis=0)], axis=1).astype(np.float32)

    def follow(self, first: Columns, actions: np.ndarray) -> dict[str, np.ndarray]:
        """Pose `T 6` and gripper `T 1` after each action."""
        pose, gripper = first[EE_POSE].astype(np.float64), first[GRIPPER].astype(np.float64)
        exact = actions.astype(np.float64)
        turns = [pose[0, 3:]]
        for turn in exact[:, 3:6]:
            turns.append(apply_rotation(turn, turns[-1]))
        places = np.concatenate([pose[:1, :3], pose[:1, :3] + exact[:, :3].cumsum(0)])
        openings = np.concatenate([gripper[:1], gripper[:1] + exact[:, 6:].cumsum(0)])
        return {EE_POSE: np.concatenate([places, np.stack(turns)], axis=1), GRIPPER: openings}


@dataclass(frozen=True)
class EulerPoseDelta:
    """The same motion with its rotation as extrinsic xyz Euler angles, as the released V-JEPA 2-AC weights take it."""

    name: ClassVar[str] = "pose_delta_euler"
    joined: ClassVar[Joined] = "sum"
    needs: ClassVar[tuple[str, ...]] = (EE_POSE, GRIPPER)

    def __call__(self, columns: Columns) -> np.ndarray:
        """Columns of T steps in, actions `T-1 7` out."""
        action = PoseDelta()(columns)
        action[:, 3:6] = euler_of_quaternion(quaternion(action[:, 3:6].astype(np.float64)))
        return action

    def follow(self, first: Columns, actions: np.ndarray) -> dict[str, np.ndarray]:
        """Pose `T 6` (rotation vector) and gripper `T 1` after each action."""
        turned = actions.astype(np.float64)
        turned[:, 3:6] = rotation_vector(quaternion_of_euler(turned[:, 3:6]))
        return PoseDelta().follow(first, turned)


@dataclass(frozen=True)
class HandAndGrip:
    """The measured motion of the hand, with the commanded finger opening before and after it.

        a_t = (x_{t+1} - x_t,  c_t,  c_{t+1})

    Metres; positions in the base frame. The opening is the commanded one, because the measured opening does not show
    the grip force.
    """

    name: ClassVar[str] = "hand_and_grip"
    joined: ClassVar[Joined] = "never"
    needs: ClassVar[tuple[str, ...]] = (EE_POSE, GRIPPER_COMMAND)

    def __call__(self, columns: Columns) -> np.ndarray:
        """Columns of T steps in, actions `T-1 5` out."""
        moved = np.diff(columns[EE_POSE][:, :3].astype(np.float64), axis=0)
        told = columns[GRIPPER_COMMAND]
        return np.concatenate([moved, told[:-1], told[1:]], axis=1).astype(np.float32)

    def follow(self, first: Columns, actions: np.ndarray) -> dict[str, np.ndarray]:
        """Pose `T 6` (the rotation is constant) and commanded opening `T 1` after each action."""
        exact = actions.astype(np.float64)
        poses = np.repeat(first[EE_POSE].astype(np.float64), len(exact) + 1, axis=0)
        poses[1:, :3] += exact[:, :3].cumsum(0)
        return {EE_POSE: poses, GRIPPER_COMMAND: np.concatenate([first[GRIPPER_COMMAND], exact[:, 4:]])}


@dataclass(frozen=True)
class JointVelocity:
    """Mean velocity of each joint between two steps.

        a_t = (q_{t+1} - q_t) / (t_{t+1} - t_t)

    Radians per second (metres per second for sliding joints).

    Args:
        column: The column of the joint angles, such as `observation.state[0:7]`.
    """

    column: str = f"{STATE}[0:7]"
    name: ClassVar[str] = "joint_velocity"
    joined: ClassVar[Joined] = "mean"

    @property
    def needs(self) -> tuple[str, ...]:
        """The column of the joints, and the time."""
        return (base_name(self.column), TIMESTAMP)

    def __call__(self, columns: Columns) -> np.ndarray:
        """Columns of T steps in, actions `T-1 A` out."""
        moved = np.diff(take(columns, self.column).astype(np.float64), axis=0)
        return (moved / np.diff(columns[TIMESTAMP])[:, None]).astype(np.float32)

    def follow(self, first: Columns, actions: np.ndarray) -> dict[str, np.ndarray]:
        """Joints `T A` after each action; `first` has the joints of one step and the times of all T."""
        start = take(first, self.column)[:1].astype(np.float64)
        steps = actions.astype(np.float64) * np.diff(first[TIMESTAMP])[:, None]
        return {self.column: np.concatenate([start, start + steps.cumsum(0)])}


@dataclass(frozen=True)
class NoActions:
    """Empty actions, for systems that learn from images alone and for logs without actions."""

    name: ClassVar[str] = "none"
    joined: ClassVar[Joined] = "sum"
    needs: ClassVar[tuple[str, ...]] = (FRAME_INDEX,)

    def __call__(self, columns: Columns) -> np.ndarray:
        """Columns of T steps in, `T-1 0` out."""
        return np.zeros((len(columns[FRAME_INDEX]) - 1, 0), dtype=np.float32)

    def follow(self, first: Columns, actions: np.ndarray) -> dict[str, np.ndarray]:
        """Returns no columns."""
        return {}


KnownPart = PoseDelta | EulerPoseDelta | CommandedActions | HandAndGrip | JointVelocity | NoActions
ACTION_PARTS: dict[str, type[KnownPart]] = {
    PoseDelta.name: PoseDelta,
    EulerPoseDelta.name: EulerPoseDelta,
    CommandedActions.name: CommandedActions,
    HandAndGrip.name: HandAndGrip,
    JointVelocity.name: JointVelocity,
    NoActions.name: NoActions,
}

HAND_AND_GRIP_NAMES = ("dx [m]", "dy [m]", "dz [m]", "opening before [m]", "opening after [m]")
ACTION_NAMES = ("dx [m]", "dy [m]", "dz [m]", "rx [rad]", "ry [rad]", "rz [rad]", "gripper")


def action_names(part: ActionPart, width: int) -> tuple[str, ...]:
    """Name and unit of each of the `width` numbers of an action, or of a block of several."""
    motion = part.name in (PoseDelta.name, EulerPoseDelta.name)
    if width == len(ACTION_NAMES) and (motion or part == CommandedActions()):
        return ACTION_NAMES
    if motion:
        return tuple(f"{name} {block}" for block in range(width // len(ACTION_NAMES)) for name in ACTION_NAMES)
    if isinstance(part, HandAndGrip):
        return HAND_AND_GRIP_NAMES
    if isinstance(part, JointVelocity):
        return tuple(f"joint {axis} [rad/s]" for axis in range(width))
    return tuple(map(str, range(width)))


def describe(part: KnownPart) -> dict[str, Any]:
    """An action part as a JSON value for a checkpoint: its name and arguments."""
    return {"name": part.name, **asdict(part)}


def action_part(description: Mapping[str, Any]) -> KnownPart:
    """Build the action part that `describe` described.

    Raises:
        UnknownName: If there is no such action part.
        ValueError: If it has no such argument.
    """
    kind = choose(ACTION_PARTS, str(description.get("name")), "action part")
    arguments = {key: value for key, value in description.items() if key != "name"}
    known = {field.name for field in fields(kind)}
    if not arguments.keys() <= known:
        raise ValueError(f"{kind.name} takes {sorted(known) or 'no arguments'}, got {sorted(arguments)}")
    return kind(**arguments)
