"""Synthetic logs with images of a usual size: a camera that moves over a textured plane, with sensor noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jepa_mpc.seeding import numpy_generator
from jepa_mpc.trajectories.episode import Episode, make_episode
from jepa_mpc.trajectories.formats import WRITERS, open_log
from jepa_mpc.trajectories.formats.npz import episode_path, write_episode

DT_S = 0.1
NOISE = 2.0  # grey levels

KINDS: dict[str, tuple[str, str]] = {
    "npz": ("npz", ""),
    "mp4 h264 (LeRobot)": ("lerobot", "h264"),
    "mp4 av1 (LeRobot)": ("lerobot", "av1"),
    "HDF5 (robomimic)": ("robomimic", ""),
}
"""Name of a row -> format to write, and the storage of frames."""


def write_logs(folder: Path, *, kinds: list[str], episodes: int, steps: int, size: tuple[int, int]) -> dict[str, Path]:
    """The same episodes in several formats, by name of the row; existing ones are kept.

    Args:
        folder: Where the logs go.
        kinds: Names in `KINDS`.
        episodes: Number of episodes.
        steps: Steps of each.
        size: Height and width of the images, px.
    """
    ours = folder / f"npz_{size[0]}x{size[1]}"
    if not (ours / "episode_000000.npz").exists():
        for index in range(episodes):
            write_episode(episode_path(ours, index), wandering(index, steps=steps, size=size))
    found = {}
    for kind in kinds:
        name, frames = KINDS[kind]
        end = ".hdf5" if name == "robomimic" else ""
        place = ours if name == "npz" else folder / f"{name}{frames}_{size[0]}x{size[1]}{end}"
        if not place.exists():
            WRITERS[name](open_log(ours), place, **({"frames": frames} if frames else {}))
        found[kind] = place
    return found


def wandering(index: int, *, steps: int, size: tuple[int, int]) -> Episode:
    """One episode; equal arguments give identical arrays."""
    generator = numpy_generator(0, "loading", index)
    plane = _texture(generator, 2 * max(size))
    room = np.array(plane.shape[:2]) - size
    walk = np.cumsum(generator.normal(scale=2.0, size=(steps, 2)), axis=0) + room / 2
    corners = np.clip(walk, 0, room - 1).astype(int)
    frames = np.empty((steps, *size, 3), dtype=np.uint8)
    for step, (row, column) in enumerate(corners):
        seen = plane[row : row + size[0], column : column + size[1]]
        frames[step] = np.clip(seen + generator.normal(scale=NOISE, size=(*size, 1)), 0, 255)
    position = 0.1 * np.concatenate([walk / room, np.zeros((steps, 1))], axis=1)
    proprio = np.concatenate([np.zeros((steps, 8)), position, np.zeros((steps, 3))], axis=1)
    return make_episode(
        frames={"top": frames}, proprio=proprio, actions=np.zeros((steps, 7)), dt_s=DT_S, index=index, metadata={}
    )


def _texture(generator: np.random.Generator, side: int) -> np.ndarray:
    """Smooth blotches of several sizes, `side side 3` in grey levels."""
    total = np.full((side, side, 3), 128.0)
    for cells, strength in ((4, 60.0), (12, 30.0), (40, 15.0)):
        coarse = generator.normal(scale=strength, size=(cells, cells, 3))
        at = np.linspace(0, cells - 1.001, side)
        low, part = at.astype(int), at % 1
        rows = coarse[low] * (1 - part)[:, None, None] + coarse[low + 1] * part[:, None, None]
        total += rows[:, low] * (1 - part)[:, None] + rows[:, low + 1] * part[:, None]
    return total
