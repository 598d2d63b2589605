"""Episodes of pucks that a hand pushes: images, positions, contacts, and segmentation for evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from jepa_mpc.envs.pucks import LARGEST_STEP_M, NUM_BODIES, NUM_PUCKS, PUCK_RADIUS_M, WALL_M, PuckTable, scattered
from jepa_mpc.files import atomic_file
from jepa_mpc.seeding import numpy_generator

AIMED = 0.8
"""Share of the hand's paths that lead through a puck; the others are random."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The settings of a recording.

    Args:
        episodes: For every number of pucks in `counts`.
        counts: Numbers of pucks.
        steps: Frames of an episode; as many actions.
        size: Side of the images in pixels.
        split: Name of the part; episodes of different parts differ.
        segmented: Number of initial frames per episode with stored segmentation.
        seed: Seed of all randomness.
    """

    episodes: int
    counts: tuple[int, ...]
    steps: int
    size: int
    split: str
    segmented: int = 0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Recorded episodes (B of them); bodies are the hand and the pucks by colour.

    Args:
        frames: uint8 `B T 3 h w`.
        actions: float32 `B T 2` (m); action t leads from frame t to t + 1.
        states: float64 `B T 20`, full physics states.
        met: bool `B T 5 5`: which bodies touched during action t.
        present: bool `B 5`.
        owners: uint8 `B t h w` of the first frames: 0 the table, 1 + n body n.
    """

    frames: Tensor
    actions: Tensor
    states: Tensor
    met: Tensor
    present: Tensor
    owners: Tensor

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def places_m(self) -> Tensor:
        """Centre of every body, float32 `B T 5 2`; absent bodies are at 0."""
        return self.states[..., : 2 * NUM_BODIES].unflatten(-1, (NUM_BODIES, 2)).float()

    def first(self, steps: int) -> Episodes:
        """The same episodes, cut to that many frames."""
        cut = {name: getattr(self, name)[:, :steps] for name in ("frames", "actions", "states", "met")}
        return replace(self, **cut)

    def counted(self, pucks: int) -> Tensor:
        """Numbers of the episodes with that many pucks."""
        return torch.nonzero(self.present.sum(dim=1) == 1 + pucks).flatten()


def load_episodes(path: Path, recording: Recording) -> Episodes:
    """The episodes of a recording: loaded if the file exists, else recorded and saved.

    Raises:
        ValueError: If the file holds another recording.
        NoOpenGL: If rendering is not available.
    """
    if not path.exists():
        arrays = record(recording)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as draft, draft.open("wb") as file:
            np.savez(file, about=np.array(str(recording)), **arrays)
    with np.load(path, allow_pickle=False) as file:
        if str(file["about"]) != str(recording):
            raise ValueError(f"{path} holds {file['about']}, asked for {recording}: remove it or name another folder")
        return Episodes(**{name: torch.from_numpy(file[name]) for name in Episodes.__dataclass_fields__})


def record(recording: Recording) -> dict[str, NDArray[Any]]:
    """Record all episodes; each has a random stream of its own."""
    jobs = [(count, number) for count in recording.counts for number in range(recording.episodes)]
    table, rows = PuckTable(size=recording.size), []
    try:
        for count, number in tqdm(jobs, desc=f"episodes ({recording.split})"):
            rng = numpy_generator(recording.seed, "pucks", recording.split, count, number)
            rows.append(_episode(table, recording, count, rng))
    finally:
        table.close()
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _episode(table: PuckTable, recording: Recording, count: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    present = np.zeros(NUM_BODIES, dtype=np.bool_)
    present[[0, *(1 + rng.permutation(NUM_PUCKS)[:count])]] = True
    table.lay(scattered(rng, present), present)
    wander = Wander(rng)
    kept: dict[str, list[Any]] = {name: [] for name in ("frames", "actions", "states", "met", "owners")}
    for time in range(recording.steps):
        kept["frames"].append(table.picture())
        kept["states"].append(table.state())
        if time < recording.segmented:
            kept["owners"].append(table.owners())
        action = wander(table).astype(np.float32)
        kept["actions"].append(action)
        kept["met"].append(table.step(action))
    empty = np.zeros((0, recording.size, recording.size), dtype=np.uint8)
    stacked = {name: np.stack(values) if values else empty for name, values in kept.items()}
    return {**stacked, "present": present}


class Wander:
    """Paths of the hand: mostly straight through a puck, with a little noise, each at its own speed.

    Args:
        rng: Source of randomness.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.left = rng, 0
        self.target_m, self.speed = np.zeros(2), 0.0

    def __call__(self, table: PuckTable) -> NDArray[np.float64]:
        """The next action (m)."""
        places = table.places_m()
        if self.left == 0 or np.linalg.norm(self.target_m - places[0]) < 0.02:
            self._aim(places, table.present)
        self.left -= 1
        way = self.target_m - places[0]
        length = max(float(np.linalg.norm(way)), 1e-9)
        step = way / length * min(length, self.speed) + self.rng.normal(size=2) * 0.004
        return np.clip(step, -LARGEST_STEP_M, LARGEST_STEP_M)

    def _aim(self, places: NDArray[np.float64], present: NDArray[np.bool_]) -> None:
        self.left, self.speed = 10, float(self.rng.uniform(0.5, 1.0)) * LARGEST_STEP_M
        self.target_m = self.rng.uniform(-0.9, 0.9, 2) * WALL_M
        if self.rng.random() < AIMED:
            body = int(self.rng.choice(np.flatnonzero(present)[1:]))
            point = places[body] + self.rng.normal(size=2) * 0.4 * PUCK_RADIUS_M
            way = point - places[0]
            beyond = self.rng.uniform(0.02, 0.2) / max(float(np.linalg.norm(way)), 1e-9)
            self.target_m = np.clip(point + way * beyond, -0.95 * WALL_M, 0.95 * WALL_M)
