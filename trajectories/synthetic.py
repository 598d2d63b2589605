"""Synthetic logs for tests: a bright square that moves as its actions say, seen by any number of cameras."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jepa_mpc.seeding import numpy_generator
from jepa_mpc.trajectories.episode import Episode, make_episode
from jepa_mpc.trajectories.formats.npz import episode_path, write_episode

DT_S = 0.25


def synthetic_episode(
    index: int, *, length: int = 8, image_size: int = 16, cameras: tuple[str, ...] = ("left", "right"), seed: int = 0
) -> Episode:
    """One synthetic episode; equal arguments give identical arrays.

    Args:
        index: Number of the episode.
        length: Observations T.
        image_size: Height and width, px.
        cameras: Camera names.
        seed: Base seed.
    """
    generator = numpy_generator(seed, "synthetic", index)
    actions = np.zeros((length, 7), dtype=np.float32)
    actions[:, :3] = generator.uniform(-0.05, 0.05, size=(length, 3))
    position = generator.uniform(-0.1, 0.1, size=3) + np.concatenate([np.zeros((1, 3)), actions[:-1, :3].cumsum(0)])
    turn = np.array([np.pi * 0.9, 0.0, 0.0]) + 0.1 * position
    joints = generator.normal(size=(length, 7))
    proprio = np.concatenate([joints, np.full((length, 1), 0.04), position, turn], axis=1)
    frames = {name: _square(position[:, [i % 3, (i + 1) % 3]], image_size) for i, name in enumerate(cameras)}
    return make_episode(
        frames=frames, proprio=proprio, actions=actions, dt_s=DT_S, index=index,
        metadata={"seed": seed, "lab_index": index // 2},
    )  # fmt: skip


def synthetic_log(folder: Path, *, episodes: int = 4, length: int = 8, image_size: int = 16, seed: int = 0) -> Path:
    """Write a synthetic log and return its folder; episodes differ in length by up to two steps."""
    for index in range(episodes):
        episode = synthetic_episode(index, length=length + index % 3, image_size=image_size, seed=seed)
        write_episode(episode_path(folder, index), episode)
    return folder


def _square(place_m: np.ndarray, image_size: int) -> np.ndarray:
    """Frames `T h w 3` with a square at each position `T 2`."""
    frames = np.full((len(place_m), image_size, image_size, 3), 40, dtype=np.uint8)
    side = max(image_size // 4, 1)
    corner = ((np.clip(place_m, -0.3, 0.3) / 0.6 + 0.5) * (image_size - side)).astype(int)
    for frame, (row, column) in zip(frames, corner, strict=True):
        frame[row : row + side, column : column + side] = (250, 200, 60)
    return frames
