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

from core.files import atomic_file
from core.seeding import numpy_generator

FIXED, MOVED = "fixed", "moved"
CAMERAS = (FIXED, MOVED)
"""Whether the camera stands still between the two frames, or is moved a little as if held in a hand."""
PARTS = ("frames", "flow", "valid", "moving", "lab", "camera")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What is recorded.

    Args:
        labs: Numbers of the labs.
        pairs: Pairs per lab.
        size: Side of the pictures in pixels.
        split: Which labs, see `envs.labs.SPLITS`.
        step_m: Largest command per axis.
        shift_m: Spread of the camera's shift between two frames, where it is moved.
        turn_rad: Spread of its turn, likewise.
        push_m: Largest shift of the things on the table between two frames.
        seed: Of the motion.
    """

    labs: range
    pairs: int
    size: int
    split: str
    step_m: float = 0.05
    shift_m: float = 0.015
    turn_rad: float = 0.012
    push_m: float = 0.03
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Recorded pairs (G of them).

    Args:
        frames: uint8 `G 2 3 h w`.
        flow: float32 `G 2 h w`, exact, in pixels.
        valid: bool `G 1 h w`: seen in both frames.
        moving: bool `G 1 h w`: moved by more than the camera's motion.
        lab: int64 `G`.
        camera: int64 `G`, place in `CAMERAS`.
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
        """Frames alone, drawn evenly: what an unsupervised training may see."""
        at = torch.randint(len(self), (batch,), generator=generator)
        return {"frames": self.frames[at]}


def load_pairs(path: Path, recording: Recording) -> Pairs:
    """The pairs of a recording: read if they are there, else recorded and kept.

    Raises:
        ValueError: If the file holds another recording.
        NoOpenGL: If nothing can be drawn.
    """
    if not path.exists():
        arrays = record(recording)
        with atomic_file(path) as draft, draft.open("wb") as file:
            np.savez(file, about=np.array(str(recording)), **arrays)
    with np.load(path, allow_pickle=False) as file:
        if str(file["about"]) != str(recording):
            raise ValueError(f"{path} holds {file['about']}, asked for {recording}: remove it or name another folder")
        return Pairs(**{name: torch.from_numpy(file[name]) for name in PARTS})


def record(recording: Recording) -> dict[str, NDArray[Any]]:
    """Move arm, things and camera in one lab after the other, and look before and after."""
    from envs.labs import sample_lab
    from envs.reach import ReachEnv

    rows: list[dict[str, Any]] = []
    env = ReachEnv(cameras=(), image_size=recording.size, budget=10**9)
    try:
        for lab in tqdm(recording.labs, desc=f"pairs ({recording.split})"):
            rng = numpy_generator(recording.seed, "pairs", recording.split, lab)
            env.reset(seed=int(rng.integers(2**31)), options={"lab": sample_lab(lab, split=recording.split)})
            stage = _Stage(env, recording, rng)
            for number in range(recording.pairs):
                rows.append({**stage.pair(moved=number % 2 == 1), "lab": lab})
    finally:
        env.close()
    return {name: np.stack([row[name] for row in rows]) for name in PARTS}


class _Stage:
    """One lab in which pairs are made."""

    def __init__(self, env: Any, recording: Recording, rng: np.random.Generator) -> None:
        import mujoco

        self.env, self.recording, self.rng = env, recording, rng
        self.model, self.before = env.scene.model, mujoco.MjData(env.scene.model)
        self.things = [self.model.body(f"clutter{number}").id for number in range(len(env.lab.distractors))]
        self.places = self.model.body_pos[self.things].copy()

    def pair(self, *, moved: bool) -> dict[str, Any]:
        """Both frames and what happened between them."""
        import mujoco

        from envs.flow import exact_flow

        camera = ("left", "right")[int(self.rng.integers(2))]
        self._wander()
        mujoco.mj_copyData(self.before, self.model, self.env.scene.data)
        first = self._look(camera)
        number = self.model.camera(camera).id
        pose = self.model.cam_pos[number].copy(), self.model.cam_quat[number].copy()
        if moved:
            self._move_camera(number)
        self._push()
        self._wander()
        second = self._look(camera)
        truth = exact_flow(self.model, self.before, self.env.scene.data, camera=camera, size=self.recording.size)
        self.model.cam_pos[number], self.model.cam_quat[number] = pose
        self.model.body_pos[self.things] = self.places
        return {
            "frames": np.stack([first, second]),
            "flow": truth.flow,
            "valid": truth.valid[None],
            "moving": truth.moving[None],
            "camera": CAMERAS.index(MOVED if moved else FIXED),
        }

    def _wander(self) -> None:
        import mujoco

        step = np.zeros(7)
        step[:3] = self.rng.uniform(-1, 1, 3) * self.recording.step_m
        middle = np.mean(self.env.arm.workspace(), axis=0)
        pull = middle - self.env.hand_m()
        if np.linalg.norm(pull) > 0.2:  # far out: rather inward than against the workspace's walls
            step[:3] = np.abs(step[:3]) * np.sign(pull)
        self.env.arm.move(step)
        mujoco.mj_forward(self.model, self.env.scene.data)

    def _push(self) -> None:
        """Shift every thing on the table along it, or leave it, by even chances."""
        shift = self.rng.uniform(-1, 1, (len(self.things), 2)) * self.recording.push_m
        shift[self.rng.random(len(self.things)) < 0.5] = 0.0
        self.model.body_pos[self.things, :2] = self.places[:, :2] + shift

    def _move_camera(self, number: int) -> None:
        import mujoco

        turn, turned = self.rng.normal(size=3) * self.recording.turn_rad, np.zeros(4)
        angle = float(np.linalg.norm(turn))
        quaternion = np.concatenate([[np.cos(angle / 2)], np.sin(angle / 2) * turn / max(angle, 1e-12)])
        mujoco.mju_mulQuat(turned, self.model.cam_quat[number], quaternion)
        self.model.cam_quat[number] = turned
        self.model.cam_pos[number] += self.rng.normal(size=3) * self.recording.shift_m

    def _look(self, camera: str) -> NDArray[np.uint8]:
        from envs.image_effects import degrade

        picture = self.env.picture(camera, self.recording.size)
        return np.ascontiguousarray(degrade(picture, self.env.lab.image, self.rng).transpose(2, 0, 1))
