"""Recording: one episode from an environment, and a log that grows in order, survives kills and ends with a manifest.

Several processes record at once, so episodes finish out of order. Each is first saved under `.staging/` and moves into
the log when all before it are there: the log is always a gapless sequence of whole episodes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.random import Generator

from jepa_mpc.errors import BadEpisode
from jepa_mpc.trajectories.episode import Episode, make_episode
from jepa_mpc.trajectories.formats.npz import FILE_NAME, episode_path, read_episode
from jepa_mpc.trajectories.formats.npz_writer import write_manifest as write_manifest
from jepa_mpc.trajectories.motion import Motion
from jepa_mpc.types import ActionBox
from jepa_mpc.workspaces import clear_workspaces

STAGING = ".staging"


class Recordable(Protocol):
    """The environment interface of a recorder (that of gymnasium, with cameras and a time step)."""

    cameras: tuple[str, ...]
    dt_s: float

    @property
    def action_box(self) -> ActionBox:
        """Bounds of one action."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode."""

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], Any, bool, bool, dict[str, Any]]:
        """Execute one action."""


class RecordableSideBySide(Protocol):
    """What a recorder needs of worlds side by side (`envs.gym.vector.GymVector`)."""

    @property
    def playing(self) -> Sequence[Recordable]:
        """The worlds whose episodes are recorded."""

    def reset(
        self, *, seed: Sequence[int], options: dict[str, Any] | None = None
    ) -> Sequence[tuple[dict[str, np.ndarray], dict[str, Any]]]:
        """Begin an episode for each seed."""

    def step(
        self, actions: Sequence[np.ndarray | None]
    ) -> Sequence[tuple[dict[str, np.ndarray], Any, bool, bool, dict[str, Any]] | None]:
        """Carry out an action in each world; None leaves a world alone."""


def record_episode(
    env: Recordable,
    make_motion: Callable[[], Motion],
    *,
    index: int,
    steps: int,
    seed: int,
    options: Mapping[str, Any],
    metadata: Mapping[str, Any],
    generator: Generator,
    sensors: Mapping[str, Callable[[], np.ndarray]] | None = None,
    hand: bool = True,
) -> Episode:
    """Run a motion and record observations and actions.

    An episode ends early if the environment truncates it, or terminates (the simulation failed); the failed step is
    dropped.

    Args:
        env: The environment.
        make_motion: Creates the motion of this episode after the reset (the workspace may depend on the lab).
        index: Number of the episode.
        steps: Actions to execute; steps + 1 observations are recorded.
        seed: Seed of the environment's reset.
        options: Options of the reset.
        metadata: What to store beside the arrays, JSON values.
        generator: The motion's source of randomness.
        sensors: Readers of optional fields (`clouds`), called after every observation.
        hand: Whether the proprioception ends in the pose of a hand.
    """
    seen, _ = env.reset(seed=seed, options=dict(options))
    recording = _Recording(env, seen, make_motion(), generator, sensors or {})
    for _ in range(steps):
        action = recording.act()
        recording.take(action, *env.step(action))
        if recording.over:
            break
    return recording.episode(index=index, metadata=metadata, seed=seed, hand=hand)


def record_side_by_side(
    env: RecordableSideBySide,
    make_motion: Callable[[Recordable], Motion],
    *,
    indices: Sequence[int],
    steps: int,
    seeds: Sequence[int],
    generators: Sequence[Generator],
    metadata: Mapping[str, Any],
) -> list[Episode]:
    """Record an episode in each of several worlds at once; they are those that `record_episode` records.

    Args:
        env: The worlds.
        make_motion: Gives the motion of a world's episode, after the reset.
        indices: Numbers of the episodes.
        steps: Actions to carry out at most.
        seeds: Of the reset, one per episode.
        generators: Randomness of each motion.
        metadata: What to keep beside the arrays of each, JSON values.
    """
    begun = env.reset(seed=seeds)
    recordings = [
        _Recording(world, seen, make_motion(world), generator, {})
        for world, (seen, _), generator in zip(env.playing, begun, generators, strict=True)
    ]
    for _ in range(steps):
        actions = [None if recording.over else recording.act() for recording in recordings]
        for recording, action, outcome in zip(recordings, actions, env.step(actions), strict=True):
            if action is not None and outcome is not None:
                recording.take(action, *outcome)
        if all(recording.over for recording in recordings):
            break
    return [
        recording.episode(index=index, metadata=metadata, seed=seed, hand=False)
        for recording, index, seed in zip(recordings, indices, seeds, strict=True)
    ]


class _Recording:
    """One episode while it is recorded: what was seen and done so far."""

    def __init__(
        self,
        env: Recordable,
        seen: dict[str, np.ndarray],
        motion: Motion,
        generator: Generator,
        sensors: Mapping[str, Callable[[], np.ndarray]],
    ) -> None:
        motion.start(seen["proprio"], generator)
        self.env, self.motion, self.generator, self.sensors = env, motion, generator, sensors
        self.frames, self.proprio = [seen["frames"]], [seen["proprio"]]
        self.actions: list[np.ndarray] = []
        self.extras = {name: [read()] for name, read in sensors.items()}
        self.facts: dict[str, Any] = {}
        self.over = False

    def act(self) -> np.ndarray:
        """The motion's next action `(A,)`."""
        return self.motion(self.proprio[-1], self.generator)

    def take(
        self,
        action: np.ndarray,
        seen: dict[str, np.ndarray],
        reward: Any,
        terminated: bool,
        truncated: bool,
        info: dict[str, Any],
    ) -> None:
        """Keep what an action led to."""
        self.over = terminated or truncated
        if terminated:
            self.facts["ended_by"] = str(info.get("sim_error", "terminated"))
            return
        self.frames.append(seen["frames"])
        self.proprio.append(seen["proprio"])
        for name, rows in self.extras.items():
            rows.append(self.sensors[name]())
        self.actions.append(action)

    def episode(self, *, index: int, metadata: Mapping[str, Any], seed: int, hand: bool) -> Episode:
        """The episode as a log holds it."""
        actions = [*self.actions, np.zeros_like(self.env.action_box.low.numpy())]
        pictures = np.stack(self.frames)  # (T, C, h, w)
        return make_episode(
            frames={
                name: pictures[:, 3 * i : 3 * i + 3].transpose(0, 2, 3, 1) for i, name in enumerate(self.env.cameras)
            },
            proprio=np.stack(self.proprio),
            actions=np.stack(actions),
            dt_s=float(self.env.dt_s),
            index=index,
            metadata={**metadata, **self.facts, "seed": seed},
            extras={name: np.stack(rows) for name, rows in self.extras.items()},
            hand=hand,
        )


def staged_path(folder: Path, index: int) -> Path:
    """Path of a finished episode that waits for earlier ones."""
    return episode_path(folder / STAGING, index)


def publish_staged(folder: Path, done: int) -> int:
    """Move waiting episodes into the log as long as the next number exists; returns the new number of episodes."""
    while staged_path(folder, done).exists():
        os.replace(staged_path(folder, done), episode_path(folder, done))
        done += 1
    return done


def repair(folder: Path) -> set[int]:
    """Repair a log that was interrupted at any point; a second call changes nothing.

    Half-written files and damaged episodes are deleted; whole episodes after a gap move back to the staging folder.

    Returns:
        The numbers of all whole episodes, published or waiting.
    """
    staging = folder / STAGING
    staging.mkdir(parents=True, exist_ok=True)
    for place in (folder, staging):
        clear_workspaces(place)
    good = {index for place in (folder, staging) for index in _whole_episodes(place)}
    count = next(i for i in range(len(good) + 1) if i not in good)
    for index in good:
        held = episode_path(folder, index)
        if index >= count and held.exists():
            os.replace(held, staged_path(folder, index))
    publish_staged(folder, next(i for i in range(len(good) + 1) if not episode_path(folder, i).exists()))
    return good


def _whole_episodes(folder: Path) -> list[int]:
    """Numbers of the readable episodes of a folder; the others are deleted."""
    good = []
    for path in sorted(folder.glob("episode_*.npz")):
        match = FILE_NAME.fullmatch(path.name)
        if match is None:
            continue
        try:
            read_episode(path)
            good.append(int(match[1]))
        except BadEpisode:
            path.unlink()
    return good
