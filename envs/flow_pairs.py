"""Frame pairs with exact flow: the arm moves, objects on the table are pushed, and the camera may move."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.flow import TrueFlow, exact_flow
from jepa_mpc.envs.image_effects import degrade
from jepa_mpc.envs.labs import SIDES
from jepa_mpc.envs.tabletop import TabletopEnv

REACH_M = 0.2
"""Maximum distance from the middle of its workspace, from which the hand is sent back."""


@dataclass(frozen=True, kw_only=True)
class Motions:
    """Amount of motion between two frames.

    Args:
        step_m: Largest command of the hand per axis.
        push_m: Largest shift of an object on the table per axis; half of them stay.
        shift_m: Standard deviation of the camera's shift per axis, if it moves.
        turn_rad: Standard deviation of its rotation per axis, if it moves.
    """

    step_m: float = 0.05
    push_m: float = 0.03
    shift_m: float = 0.015
    turn_rad: float = 0.012


class PairStage:
    """One lab in which pairs are made; every pair starts where the last one ended, with objects and cameras reset.

    Args:
        env: A task in its lab (after `reset`).
        size: Side of the images in pixels.
        motions: Amount of motion.
        rng: Draws all motion, and the image noise.
    """

    def __init__(self, env: TabletopEnv, *, size: int, motions: Motions, rng: np.random.Generator) -> None:
        self.env, self.size, self.motions, self.rng = env, size, motions, rng
        self.model = env.scene.model
        self.things = [self.model.body(f"clutter{number}").id for number in range(len(env.lab.distractors))]
        self.places = self.model.body_pos[self.things].copy()

    def pair(self, *, moved: bool) -> tuple[NDArray[np.uint8], TrueFlow]:
        """Frames before and after `(2, 3, h, w)`, and the flow between them; `moved`: the camera moves, too."""
        camera = tuple(SIDES)[int(self.rng.integers(len(SIDES)))]
        self._wander()
        before = copy(self.env.scene.data)
        first = self._look(camera)
        number = self.model.camera(camera).id
        pose = self.model.cam_pos[number].copy(), self.model.cam_quat[number].copy()
        if moved:
            self._move_camera(number)
        self._push()
        self._wander()
        second = self._look(camera)
        truth = exact_flow(self.model, before, self.env.scene.data, camera=camera, size=self.size)
        self.model.cam_pos[number], self.model.cam_quat[number] = pose
        self.model.body_pos[self.things] = self.places
        return np.stack([first, second]), truth

    def _wander(self) -> None:
        step = np.zeros(7)
        step[:3] = self.rng.uniform(-1, 1, 3) * self.motions.step_m
        pull = np.mean(self.env.arm.workspace(), axis=0) - self.env.hand_m()
        if np.linalg.norm(pull) > REACH_M:  # move inward instead of against the workspace limits
            step[:3] = np.abs(step[:3]) * np.sign(pull)
        self.env.arm.move(step)
        mujoco.mj_forward(self.model, self.env.scene.data)

    def _push(self) -> None:
        shift = self.rng.uniform(-1, 1, (len(self.things), 2)) * self.motions.push_m
        shift[self.rng.random(len(self.things)) < 0.5] = 0.0
        self.model.body_pos[self.things, :2] = self.places[:, :2] + shift

    def _move_camera(self, number: int) -> None:
        turn, turned = self.rng.normal(size=3) * self.motions.turn_rad, np.zeros(4)
        angle = float(np.linalg.norm(turn))
        quaternion = np.concatenate([[np.cos(angle / 2)], np.sin(angle / 2) * turn / max(angle, 1e-12)])
        mujoco.mju_mulQuat(turned, self.model.cam_quat[number], quaternion)
        self.model.cam_quat[number] = turned
        self.model.cam_pos[number] += self.rng.normal(size=3) * self.motions.shift_m

    def _look(self, camera: str) -> NDArray[np.uint8]:
        picture = degrade(self.env.picture(camera, self.size), self.env.lab.image, self.rng)
        return np.ascontiguousarray(picture.transpose(2, 0, 1))
