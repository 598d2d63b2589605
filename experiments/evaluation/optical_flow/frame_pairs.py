"""Pairs of neighbouring frames with exact flow, recorded in labs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from jepa_mpc.files import atomic_file
from jepa_mpc.seeding import numpy_generator

FIXED, MOVED = "fixed", "moved"
CAMERAS = (FIXED, MOVED)
"""Whether the camera is fixed between the two frames, or moves a little as if handheld."""
PARTS = ("frames", "flow", "valid", "moving", "lab", "camera")


@dataclass(frozen=True, kw_only=True)
class FlowRecording:
    """The settings of a recording.

    Args:
        labs: Numbers of the labs.
        pairs: Pairs per lab.
        size: Side of the images in pixels.
        split: Which labs, see `envs.labs.SPLITS`.
        seed: Of the motion.
    """

    labs: range
    pairs: int
    size: int
    split: str
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class FlowPairs:
    """Recorded pairs (G of them).

    Args:
        frames: uint8 `G 2 3 h w`.
        flow: float32 `G 2 h w`, exact, in pixels.
        valid: bool `G 1 h w`: visible in both frames.
        moving: bool `G 1 h w`: moved by more than the camera's motion.
        lab: int64 `G`.
        camera: int64 `G`, index in `CAMERAS`.
    """

    frames: Tensor
    flow: Tensor
    valid: Tensor
    moving: Tensor
    lab: Tensor
    camera: Tensor

    def __len__(self) -> int:
        return len(self.frames)

    def sample(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Frames alone, sampled uniformly, for unsupervised training."""
        at = torch.randint(len(self), (batch,), generator=generator)
        return {"frames": self.frames[at]}


def load_pairs(path: Path, recording: FlowRecording) -> FlowPairs:
    """The pairs of a recording: loaded if the file exists, else recorded and saved.

    Raises:
        ValueError: If the file holds another recording.
        NoOpenGL: If rendering is not available.
    """
    if not path.exists():
        arrays = record(recording)
        with atomic_file(path) as draft, draft.open("wb") as file:
            np.savez(file, about=np.array(str(recording)), **arrays)
    with np.load(path, allow_pickle=False) as file:
        if str(file["about"]) != str(recording):
            raise ValueError(f"{path} holds {file['about']}, asked for {recording}: remove it or name another folder")
        return FlowPairs(**{name: torch.from_numpy(file[name]) for name in PARTS})


def record(recording: FlowRecording) -> dict[str, NDArray[Any]]:
    """Record pairs in one lab after the other; every second one with a moving camera."""
    from jepa_mpc.envs.flow_pairs import Motions, PairStage
    from jepa_mpc.envs.labs import sample_lab
    from jepa_mpc.envs.reach import ReachEnv

    rows: list[dict[str, Any]] = []
    env = ReachEnv(cameras=(), image_size=recording.size, budget=10**9)
    try:
        for lab in tqdm(recording.labs, desc=f"pairs ({recording.split})"):
            rng = numpy_generator(recording.seed, "pairs", recording.split, lab)
            env.reset(seed=int(rng.integers(2**31)), options={"lab": sample_lab(lab, split=recording.split)})
            stage = PairStage(env, size=recording.size, motions=Motions(), rng=rng)
            for number in range(recording.pairs):
                camera = number % len(CAMERAS)
                frames, truth = stage.pair(moved=CAMERAS[camera] == MOVED)
                rows.append(
                    {
                        "frames": frames,
                        "flow": truth.flow,
                        "valid": truth.valid[None],
                        "moving": truth.moving[None],
                        "lab": lab,
                        "camera": camera,
                    }
                )
    finally:
        env.close()
    return {name: np.stack([row[name] for row in rows]) for name in PARTS}
