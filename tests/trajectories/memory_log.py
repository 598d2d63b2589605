"""A log that the test makes up: arrays in memory behind the protocol that every reader fulfils."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.episode import (
    ACTION,
    DEPTH,
    EPISODE_INDEX,
    FRAME_INDEX,
    IMAGES,
    STATE,
    TASK_INDEX,
    TIMESTAMP,
)

SIDE, FPS = 32, 10
AXES = {STATE: ["x", "y"], ACTION: {"motors": ["left", "right"]}}


class MemoryLog:
    """Episodes with a camera, its depth, columns of unusual dtypes, and the tasks of their steps.

    Args:
        steps: Texts of the steps of each episode: `[["open"] * 5, ["open"] * 3 + ["close"] * 3]`.
        seed: Of the numbers.
        farthest_m: Depth of the farthest pixel.
    """

    format = "memory"
    remarks = ()
    damaged = {}
    dt_s = 1 / FPS
    cameras = ("top",)

    def __init__(self, steps, *, seed=0, farthest_m=4.0):
        self.path, self.steps = Path("memory"), steps
        self.lengths = [len(texts) for texts in steps]
        self.episodes = [self._episode(i, len(texts), seed, farthest_m) for i, texts in enumerate(steps)]
        self.fields = {
            name: Field(column.shape[1:], str(column.dtype), "m" if name.startswith(DEPTH) else "", FPS, AXES.get(name))
            for name, column in self.episodes[0].items()
        }

    def __len__(self):
        return len(self.lengths)

    def read(self, episode, start, stop, names):
        return {name: self.episodes[episode][name][start:stop] for name in names}

    def metadata(self, index):
        return {"tasks": list(dict.fromkeys(self.steps[index])), "robot_type": "toy"}

    def sources(self, index):
        return ()

    def _episode(self, index, length, seed, farthest_m):
        draws = np.random.default_rng([seed, index])
        order = list(dict.fromkeys(self.steps[index]))
        slope = np.linspace(0.0, farthest_m, SIDE, dtype=np.float32)
        return {
            IMAGES + "top": draws.integers(0, 256, (length, SIDE, SIDE, 3), dtype=np.uint8),
            DEPTH + "top": np.stack([np.roll(np.tile(slope, (SIDE, 1)), step, axis=1) for step in range(length)]),
            STATE: draws.normal(size=(length, 2)).astype(np.float32),
            "observation.force": draws.normal(size=(length, 3)).astype(np.float16),
            "observation.ticks": draws.integers(0, 65536, (length, 2), dtype=np.uint16),
            ACTION: draws.normal(size=(length, 2)).astype(np.float32),
            TIMESTAMP: np.arange(length) / FPS,
            FRAME_INDEX: np.arange(length),
            EPISODE_INDEX: np.full(length, index),
            TASK_INDEX: np.array([order.index(text) for text in self.steps[index]]),
        }
