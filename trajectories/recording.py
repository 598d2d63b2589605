"""Recording: one episode from an environment, and a log that grows in order, survives kills and ends with a manifest.

Several processes record at once, so episodes finish out of order. Each is first saved under `.staging/` and moves into
the log when all before it are there: the log is always a gapless sequence of whole episodes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
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
    motion = make_motion()
    motion.start(seen["proprio"], generator)
    frames, proprio, actions = [seen["frames"]], [seen["proprio"]], []
    extras = {name: [read()] for name, read in (sensors or {}).items()}
    facts = dict(metadata)
    for _ in range(steps):
        action = motion(proprio[-1], generator)
        seen, _, terminated, truncated, info = env.step(action)
        if terminated:
            facts["ended_by"] = str(info.get("sim_error", "terminated"))
            break
        frames.append(seen["frames"])
        proprio.append(seen["proprio"])
        for name, rows in extras.items():
            rows.append((sensors or {})[name]())
        actions.append(action)
        if truncated:
            break
    actions.append(np.zeros_like(env.action_box.low.numpy()))
    pictures = np.stack(frames)  # (T, C, h, w)
    return make_episode(
        frames={
            name: pictures[:, 3 * i : 3 * i + 3].transpose(0, 2, 3, 1) for i, name in enumerate(env.cameras)
        },
        proprio=np.stack(proprio),
        actions=np.stack(actions),
        dt_s=float(env.dt_s),
        index=index,
        metadata={**facts, "seed": seed},
        extras={name: np.stack(rows) for name, rows in extras.items()},
        hand=hand,
    )  # fmt: skip


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
