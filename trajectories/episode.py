"""The schema of a recorded episode: its fields, their shapes and dtypes, and the validity checks.

An episode has T observations and T actions; action t leads from observation t to t + 1. The last action leads to no
recorded observation, and windows drop it. Field names follow LeRobot, so that importers and exporters stay thin.

    observation.images.<camera>  uint8   T h w 3   RGB
    observation.depth.<camera>   float32 T h w     distance, m; 0 where nothing was measured
    observation.state            float32 T P       proprioception (joint angles, gripper, end effector), SI units
    observation.ee_pose          float32 T 6       x y z (m) and rotation vector (rad) of the end effector in the base
    observation.gripper          float32 T 1       opening
    action                       float32 T A       what was commanded, physical units
    timestamp                    float64 T         seconds since the episode began, strictly rising
    frame_index, episode_index, task_index  int64 T;   done  bool T

Logs of robots without a hand omit pose and gripper. Optional fields:

    clouds                       float32 T G 3     points from the depth cameras, m, in the base frame
    sound                        float32 T G       samples since the previous observation, -1 to 1, at G / dt_s Hz
    sound_labels                 float32 T 5       the source of the sound (see `envs.sound.ContactSound`)
    observation.gripper_command  float32 T 1       last commanded opening, m
    observation.contact          float32 T 3       force of left finger, right finger and all else on the object, N
    observation.object           float32 T 3       object position in the base frame, m (for probes, never for training)
    observation.object_yaw       float32 T 1       turn of the object about the vertical, rad (likewise)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.interfaces import Field

IMAGES, DEPTH = "observation.images.", "observation.depth."
STATE, EE_POSE, GRIPPER, ACTION = "observation.state", "observation.ee_pose", "observation.gripper", "action"
CLOUDS, SOUND, HEARD = "clouds", "sound", "sound_labels"
GRIPPER_COMMAND, CONTACT, OBJECT = "observation.gripper_command", "observation.contact", "observation.object"
OBJECT_YAW = "observation.object_yaw"
OBJECT_FELT, HELD_FELT = "object_felt", "held_felt"  # not in a log: found in hindsight (`handling`) when it is opened
TIMESTAMP, FRAME_INDEX, EPISODE_INDEX, TASK_INDEX, DONE = (
    "timestamp",
    "frame_index",
    "episode_index",
    "task_index",
    "done",
)

HAND = (EE_POSE, GRIPPER)
"""Columns of robots with a hand."""

# name -> dtype, number of axes, size of the last axis (None: free), unit
COLUMNS: dict[str, tuple[str, int, int | None, str]] = {
    STATE: ("float32", 2, None, "SI"),
    EE_POSE: ("float32", 2, 6, "m, rad"),
    GRIPPER: ("float32", 2, 1, ""),
    ACTION: ("float32", 2, None, "m, rad"),
    TIMESTAMP: ("float64", 1, None, "s"),
    FRAME_INDEX: ("int64", 1, None, ""),
    EPISODE_INDEX: ("int64", 1, None, ""),
    TASK_INDEX: ("int64", 1, None, ""),
    DONE: ("bool", 1, None, ""),
}
EXTRAS: dict[str, tuple[str, int, int | None, str]] = {
    CLOUDS: ("float32", 3, 3, "m"),
    SOUND: ("float32", 2, None, ""),
    HEARD: ("float32", 2, 5, "1, s, s, N s, 1"),
    GRIPPER_COMMAND: ("float32", 2, 1, "m"),
    CONTACT: ("float32", 2, 3, "N"),
    OBJECT: ("float32", 2, 3, "m"),
    OBJECT_YAW: ("float32", 2, 1, "rad"),
}
"""The same for optional fields."""

PICTURES: tuple[str, int, int | None, str] = ("uint8", 4, 3, "RGB")


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One recorded episode.

    Args:
        arrays: Field name to array; the first axis of each is T.
        metadata: Further facts, JSON values only: cameras, dt_s, seed, lab (parameters of the scene).
    """

    arrays: Mapping[str, np.ndarray]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Number of observations T."""
        return int(self.arrays[TIMESTAMP].shape[0])

    @property
    def cameras(self) -> tuple[str, ...]:
        """Camera names in the order in which frames are stacked."""
        return cameras_of(self.arrays, self.metadata)


def cameras_of(names: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Camera names in the order of the metadata, else in the order of the fields."""
    listed = metadata.get("cameras")
    if isinstance(listed, list) and all(isinstance(name, str) for name in listed):
        return tuple(listed)
    return tuple(name.removeprefix(IMAGES) for name in names if name.startswith(IMAGES))


def make_episode(
    *,
    frames: Mapping[str, np.ndarray],
    proprio: np.ndarray,
    actions: np.ndarray,
    dt_s: float,
    index: int,
    metadata: Mapping[str, Any],
    extras: Mapping[str, np.ndarray] | None = None,
    hand: bool = True,
) -> Episode:
    """Build the columns of an episode from recorded arrays.

    Args:
        frames: Camera name to uint8 `T h w 3`, in stacking order.
        proprio: `T P`; with a hand its last numbers are gripper opening, position (m) and rotation vector (rad) in the
            base.
        actions: Commanded actions `T A`; the last one leads to no recorded observation.
        dt_s: Seconds between two observations.
        index: Number of the episode in its log.
        metadata: Further facts (lab parameters, seed); JSON values.
        extras: Optional fields, e.g. `clouds`.
        hand: Whether the robot has a hand.
    """
    length = proprio.shape[0]
    arrays = {IMAGES + camera: np.ascontiguousarray(images) for camera, images in frames.items()}
    arrays[STATE] = proprio.astype(np.float32)
    if hand:
        arrays |= {EE_POSE: proprio[:, -6:].astype(np.float32), GRIPPER: proprio[:, -7:-6].astype(np.float32)}
    arrays |= {
        ACTION: actions.astype(np.float32),
        TIMESTAMP: np.arange(length, dtype=np.float64) * dt_s,
        FRAME_INDEX: np.arange(length, dtype=np.int64),
        EPISODE_INDEX: np.full(length, index, dtype=np.int64),
        TASK_INDEX: np.zeros(length, dtype=np.int64),
        DONE: np.arange(length) == length - 1,
    }
    arrays |= dict(extras or {})
    episode = Episode(arrays=arrays, metadata={**metadata, "cameras": list(frames), "dt_s": dt_s})
    validate(episode, f"episode {index}")
    return episode


def fields_of(episode: Episode) -> dict[str, Field]:
    """The declared fields of an episode: shape of one step, dtype, unit and rate."""
    dt_s = episode.metadata.get("dt_s")
    hz = 1.0 / dt_s if isinstance(dt_s, float) and dt_s > 0 else None
    return {
        name: Field(
            shape=tuple(array.shape[1:]),
            dtype=str(array.dtype),
            unit="RGB" if name.startswith(IMAGES) else (COLUMNS | EXTRAS)[name][3],
            hz=hz,
        )
        for name, array in episode.arrays.items()
    }


def validate(episode: Episode, where: str) -> None:
    """Check a whole episode: every column, its dtype, shape, length and values.

    Args:
        episode: The episode.
        where: The file, or another name, for error messages.

    Raises:
        BadEpisode: At the first fault; names `where` and the field.
    """
    arrays = episode.arrays
    hand = any(name in arrays for name in HAND)
    missing = [name for name in COLUMNS if name not in arrays and (hand or name not in HAND)]
    if missing:
        raise BadEpisode(f"{where}: field {missing[0]!r} is missing")
    if not any(name.startswith(IMAGES) for name in arrays):
        raise BadEpisode(f"{where}: there is no field {IMAGES}<camera>")
    for camera in episode.cameras:
        if IMAGES + camera not in arrays:
            raise BadEpisode(f"{where}: field {IMAGES + camera!r} is missing although the metadata names that camera")
    length = arrays[TIMESTAMP].shape[0] if arrays[TIMESTAMP].ndim else 0
    if length < 1:
        raise BadEpisode(f"{where}: field {TIMESTAMP!r}: the episode has no steps")
    for name, array in arrays.items():
        check_column(name, array, length=length, where=where)
    check_order(arrays, where)


def check_column(name: str, array: np.ndarray, *, length: int, where: str) -> None:
    """Check dtype, shape, length and finiteness of one column.

    Raises:
        BadEpisode: If anything differs from the schema.
    """
    known = COLUMNS | EXTRAS
    if not name.startswith(IMAGES) and name not in known:
        raise BadEpisode(f"{where}: field {name!r} is not part of the schema")
    dtype, axes, last, _ = PICTURES if name.startswith(IMAGES) else known[name]
    if array.dtype != np.dtype(dtype):
        raise BadEpisode(f"{where}: field {name!r} must have dtype {dtype}, got {array.dtype}")
    if array.ndim != axes or (last is not None and array.shape[-1] != last) or 0 in array.shape[1:]:
        ends = "" if last is None else f" ending in {last}"
        raise BadEpisode(f"{where}: field {name!r} must have {axes} axes{ends}, got shape {array.shape}")
    if array.shape[0] != length:
        raise BadEpisode(f"{where}: field {name!r} has {array.shape[0]} steps where the timestamps have {length}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        step = int(np.argwhere(~np.isfinite(array))[0][0])
        raise BadEpisode(f"{where}: field {name!r} is not finite at step {step}")


def check_order(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Check that time rises, frames count up from 0 and the episode has one index.

    Raises:
        BadEpisode: If they do not, or if cameras differ in image size.
    """
    check_rising(arrays, where)
    if (arrays[EPISODE_INDEX] != arrays[EPISODE_INDEX][0]).any():
        raise BadEpisode(f"{where}: field {EPISODE_INDEX!r} changes within the episode")
    sizes = {array.shape[1:3] for name, array in arrays.items() if name.startswith(IMAGES)}
    if len(sizes) > 1:
        raise BadEpisode(f"{where}: field {IMAGES + '*'!r}: cameras differ in image size: {sorted(sizes)}")


def check_rising(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Check that time rises and frames count up from 0, where these columns of an episode were read.

    Raises:
        BadEpisode: If they do not.
    """
    times, frames = arrays.get(TIMESTAMP), arrays.get(FRAME_INDEX)
    if times is not None and not (np.diff(times) > 0).all():
        step = int(np.argmax(np.diff(times) <= 0)) + 1
        raise BadEpisode(f"{where}: field {TIMESTAMP!r} does not rise at step {step}")
    if frames is not None and not np.array_equal(frames, np.arange(len(frames))):
        raise BadEpisode(f"{where}: field {FRAME_INDEX!r} must count 0, 1, 2, ...")
