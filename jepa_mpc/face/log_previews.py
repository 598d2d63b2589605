"""Previews of logs: a sheet of episodes over time, and videos with cameras side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jepa_mpc.reporting.drawing import enlarge, label_strip
from jepa_mpc.reporting.video import Picture
from jepa_mpc.trajectories.episode import IMAGES
from jepa_mpc.trajectories.robots import MappedLog

GAP = 4
HEIGHT = 112


def preview_sheet(log: MappedLog, episodes: Sequence[int], *, columns: int = 6) -> Picture:
    """A row of frames over time for each episode, cameras below each other."""
    rows = []
    for index in episodes:
        steps = np.linspace(0, log.lengths[index] - 1, columns).astype(int)
        pictures = [_side_by_side(log, index, int(step)) for step in steps]
        strip = np.concatenate(
            [np.pad(p, ((GAP, GAP), (GAP, GAP), (0, 0)), constant_values=255) for p in pictures], axis=1
        )
        rows.append(label_strip(strip, f"episode {index}", f"{log.lengths[index]} steps"))
    return np.concatenate(rows, axis=0)


def film(log: MappedLog, index: int, *, most: int = 150) -> list[Picture]:
    """The frames of an episode, cameras side by side."""
    stop = min(log.lengths[index], most)
    names = [IMAGES + camera for camera in log.cameras]
    read = log.read(index, 0, stop, names)
    return [
        np.concatenate([_at_height(read[name][step]) for name in names], axis=1) for step in range(stop)
    ]  # fmt: skip


def _side_by_side(log: MappedLog, index: int, step: int) -> Picture:
    names = [IMAGES + camera for camera in log.cameras]
    read = log.read(index, step, step + 1, names)
    return np.concatenate([_at_height(read[name][0]) for name in names], axis=1)


def _at_height(picture: np.ndarray) -> Picture:
    return enlarge(np.ascontiguousarray(picture), HEIGHT)
