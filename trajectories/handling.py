"""Handling by feel: motion that keeps an object in play without ever being told where it is.

The hand knows its own place, its commands and how far its fingers are apart. Closed fingers that stay apart have
something between them; where they let go of it, it lies. The object is handed over at the start, or groped for.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.random import Generator

from jepa_mpc.trajectories.motion import Reach, position_of

APART_M = 0.008  # closed fingers farther apart than this hold something
OPEN_M = 0.039
LARGEST_OPENING_M = 0.04
FELT_FRAMES = 2  # a single frame may be the fingers' lag
CLEAR_M = 0.07  # how far above its place the hand moves towards an object
AROUND_M = 0.12  # how far beside the object the hand looks at it from
LOW_M = 0.02  # above the lowest place of the hand: low enough to push or to grope
CAREFUL_M = 0.02  # longest step down while it feels for the table
RESISTED = 0.4  # a step that came less far than this share was stopped
FUMBLED_M = 0.05
PLAY_M = 0.08  # how far beside the object
SIDE_M = (0.09, 0.12)  # where a push begins, seen from the object
CIRCLE_M = (0.085, 0.13)  # beside the object, clear of it: the hand's place when it looks from low down
STRIDE_RAD = 0.7  # longest stride around the object, so short that the straight way stays clear of it
AHEAD_M = 0.035  # where the pushed object lies, seen from the hand
GRIPPER = 6
Mode = Literal[
    "carry", "lower", "release", "leave", "play", "circle", "roam", "aside", "sweep", "approach", "descend", "close"
]


class Handle:
    """Carries, puts down, goes away or pushes, comes back by what was felt, and closes again.

    Args:
        reach: Action box and workspace; the gripper's axis must be free.
        push: Chance that a push comes before the next grasp.
        grope: Chance that the next grasp is tried at a random place.
        noise_m: Standard deviation of the noise on each step, m.
        off_m: How far at most, along x and y, half of the grasps are aimed beside the object.
        play: Chance that the hand plays with what it has left before it grasps again: short steps to random points
            around it and random gripper commands.
        circle: Chance that the hand circles what it has left, low beside it and with random gripper commands, before it
            goes back: it looks from where pushes and grasps begin, and does not touch.

    Raises:
        ValueError: If the action box holds the gripper still.
    """

    def __init__(
        self,
        reach: Reach,
        *,
        push: float = 0.25,
        grope: float = 0.1,
        noise_m: float = 0.003,
        off_m: float = 0.0,
        play: float = 0.0,
        circle: float = 0.0,
    ) -> None:
        if reach.half_width[GRIPPER] <= 0:
            raise ValueError("handling needs an action box whose last axis, the gripper's, is free")
        self.reach, self.push, self.grope, self.noise_m = reach, push, grope, noise_m
        self.off_m, self.play, self.circle = off_m, play, circle
        self.mode: Mode = "approach"
        self.place = self.target = np.zeros(3)
        self.spread_m, self.left, self.felt = 0.005, 0, 0
        self.closed = False
        self._side = self._beyond = np.zeros(3)  # where a push begins and ends
        self._before, self._sent = np.zeros(3), np.zeros(3)
        self._squeeze = 0.0  # gripper command while playing or circling
        self._angle = 0.0  # from the object to the hand that circles it

    def start(self, proprio: np.ndarray, generator: Generator) -> None:
        """Begin with what is in the hand, or grope."""
        self.closed = bool(proprio[-7] < OPEN_M)
        self.felt = FELT_FRAMES if self.closed else 0
        self._before, self._sent = position_of(proprio), np.zeros(3)
        if self.closed:
            self._carry(generator)
        else:
            self._grope(generator)

    def __call__(self, proprio: np.ndarray, generator: Generator) -> np.ndarray:
        """The next action."""
        position = position_of(proprio)
        self.felt = self.felt + 1 if self.closed and proprio[-7] > APART_M else 0
        self._decide(position, generator)
        step, closing = self._act(position)
        action = self.reach.middle.copy()
        action[:3] = step + generator.normal(size=3) * self.noise_m * (self.mode not in ("close", "release"))
        action[GRIPPER] = closing
        self._before, self._sent = position, action[:3].copy()
        return self.reach.clip(action)

    def _decide(self, position: np.ndarray, generator: Generator) -> None:
        """Choose what to do now from what was done and felt."""
        arrived = bool(np.linalg.norm(self.target - position) < 0.012)
        self.left -= 1
        if self.mode == "carry":
            if self.felt == 0:  # lost on the way
                self._let_go(position)
            elif self.left <= 0:
                self.mode = "lower"
            elif arrived:
                self.target = self._somewhere(generator)
        elif self.mode == "lower" and (self._stopped(position) or position[2] <= self.reach.low[2] + 0.004):
            self._let_go(position)
        elif self.mode == "release" and self.left <= 0:
            self.mode = "leave"
            self.target = position + np.array([0.0, 0.0, generator.uniform(CLEAR_M, 2 * CLEAR_M)])
            self.target = np.minimum(self.target, self.reach.high)
            if self.play and generator.random() < self.play:
                self.mode, self.left = "play", int(generator.integers(6, 18))
                self._play_on(generator)
        elif self.mode == "leave" and (arrived or self.left < -6):
            if self.circle and generator.random() < self.circle:
                self.mode, self.left = "circle", int(generator.integers(8, 18))
                self._angle = generator.uniform(-np.pi, np.pi)
                self._circle_on(generator)
            else:
                self._go_back(generator)
        elif self.mode == "circle" and self.left <= 0:
            self.mode, self.target = "leave", position + np.array([0.0, 0.0, CLEAR_M])
        elif self.mode == "circle" and arrived:
            self._circle_on(generator)
        elif self.mode == "play" and self.left > 0:
            self._play_on(generator)
        elif self.mode == "play":
            self.mode, self.left = ("close", FELT_FRAMES + 1) if generator.random() < 0.5 else ("approach", 0)
        elif self.mode == "roam" and self.left <= 0:
            self.mode = "approach"
        elif self.mode == "roam" and arrived:
            self.target = self._around(generator)
        elif self.mode == "aside" and (arrived or self.left <= 0):
            self.mode, self.left, self.target = "sweep", 6, self._beyond
        elif self.mode == "sweep" and (arrived or self.left <= 0):
            forward = self._beyond - self._side
            self.place = position + AHEAD_M * forward / np.linalg.norm(forward)
            self.mode, self.left = "leave", 0
            self.target = position + np.array([0.0, 0.0, CLEAR_M])
            self.spread_m = 0.01
        elif self.mode == "approach" and self._is_above(position):
            self.mode, self.left = "descend", 4
            self.target = self.place + generator.normal(size=3) * np.array([self.spread_m, self.spread_m, 0.003])
            if self.off_m and generator.random() < 0.5:
                self.target[:2] += generator.uniform(-self.off_m, self.off_m, size=2)
        elif self.mode == "descend" and (arrived or self.left <= 0 or self._stopped(position)):
            self.mode, self.left = "close", FELT_FRAMES + 1
        elif self.mode == "close" and self.left <= 0:
            if self.felt >= FELT_FRAMES:
                self.spread_m = 0.005
                self._carry(generator)
            else:
                self._missed(position, generator)
        self.target = np.clip(self.target, self.reach.low, self.reach.high)

    def _act(self, position: np.ndarray) -> tuple[np.ndarray, float]:
        """The step `3` (m) and the gripper's share of the present mode."""
        if self.mode in ("release", "close"):
            self.closed = self.mode == "close"
            return np.zeros(3), 1.0 if self.closed else -1.0
        if self.mode == "lower":
            return np.array([0.0, 0.0, -CAREFUL_M]), 0.0
        if self.mode in ("aside", "sweep") and not self.closed:
            self.closed = True  # fingers closed on nothing: a pusher
            return np.zeros(3), 1.0
        if self.mode == "circle" and self._is_high(position) and np.linalg.norm((self.target - position)[:2]) > 0.02:
            return self._step(np.array([*self.target[:2], position[2]]) - position), 0.0
        if self.mode in ("play", "circle"):
            self.closed = True  # to be opened before the next grasp
            return self._step(self.target - position), self._squeeze
        opening = -1.0 if self.mode in ("approach", "roam") and self.closed else 0.0
        self.closed = self.closed and opening == 0.0
        target = self.target
        if self.mode == "approach":
            target = np.array([*self.place[:2], max(position[2], self.place[2] + CLEAR_M)])
        if self.mode == "aside" and np.linalg.norm((target - position)[:2]) > 0.02:
            target = np.array([*target[:2], max(position[2], self.place[2] + CLEAR_M)])
        return self._step(target - position), opening

    def _step(self, gap: np.ndarray) -> np.ndarray:
        """As far along a gap `3` (m) as one action goes."""
        longest = float(self.reach.half_width[:3].max())
        return np.asarray(gap * min(1.0, longest / max(float(np.linalg.norm(gap)), 1e-9)))

    def _carry(self, generator: Generator) -> None:
        self.mode, self.left, self.target = "carry", int(generator.integers(2, 7)), self._somewhere(generator)

    def _let_go(self, position: np.ndarray) -> None:
        self.mode, self.left, self.place = "release", 2, position.copy()

    def _go_back(self, generator: Generator) -> None:
        """Look at it from around, wander, push, grope, or come straight back."""
        if generator.random() < self.grope:
            self._grope(generator)
        elif generator.random() < self.push:
            angle = generator.uniform(-np.pi, np.pi)
            along = np.array([np.cos(angle), np.sin(angle), 0.0])
            ground = np.array([*self.place[:2], self.reach.low[2] + LOW_M])
            self._side = np.clip(ground - generator.uniform(*SIDE_M) * along, self.reach.low, self.reach.high)
            self._beyond = np.clip(ground + generator.uniform(0.0, 0.08) * along, self.reach.low, self.reach.high)
            self.mode, self.left, self.target = "aside", 8, self._side
        elif generator.random() < 0.7:
            self.mode, self.left = "roam", int(generator.integers(2, 8))
            self.target = self._around(generator)
        else:
            self.mode = "approach"

    def _play_on(self, generator: Generator) -> None:
        """A random point around the object, and now and then a random gripper command."""
        angle, away = generator.uniform(-np.pi, np.pi), PLAY_M * np.sqrt(generator.random())
        self.target = self.place + away * np.array([np.cos(angle), np.sin(angle), 0.0])
        self.target[2] = self.place[2] + generator.uniform(-0.02, CLEAR_M)
        self._squeeze = float(generator.uniform(-1.0, 1.0)) if generator.random() < 0.5 else 0.0

    def _circle_on(self, generator: Generator) -> None:
        """The next point around the object, within the workspace, and now and then a random gripper command."""
        for stride in (generator.uniform(-STRIDE_RAD, STRIDE_RAD), -STRIDE_RAD, STRIDE_RAD):
            angle, away = self._angle + stride, generator.uniform(*CIRCLE_M)
            target = self.place + away * np.array([np.cos(angle), np.sin(angle), 0.0])
            target[2] = self.place[2] + generator.uniform(-0.02, 0.6 * CLEAR_M)
            if np.array_equal(target[:2], np.clip(target, self.reach.low, self.reach.high)[:2]):
                break
        else:
            self.mode, self.target = "leave", self.place + np.array([0.0, 0.0, CLEAR_M])
            return
        self._angle, self.target = angle, target
        self._squeeze = float(generator.uniform(-1.0, 1.0)) if generator.random() < 0.5 else 0.0

    def _grope(self, generator: Generator) -> None:
        """Try the next grasp somewhere on the table."""
        self.place = generator.uniform(self.reach.low, self.reach.high)
        self.place[2] = self.reach.low[2] + LOW_M
        self.mode, self.spread_m = "approach", 0.02

    def _missed(self, position: np.ndarray, generator: Generator) -> None:
        """Open, go up and look again, less sure of the place."""
        place, self.spread_m = self.place, min(0.03, 2 * self.spread_m)
        self._let_go(position)
        self.place = place
        if self.spread_m >= 0.03 and generator.random() < 0.5:
            self._grope(generator)

    def _somewhere(self, generator: Generator) -> np.ndarray:
        low = self.reach.low + np.array([0.03, 0.03, 0.05])
        return generator.uniform(low, np.minimum(self.reach.high, low + np.array([np.inf, np.inf, 0.18])))

    def _around(self, generator: Generator) -> np.ndarray:
        """Above what was left behind, up to 12 cm beside it; one time in five anywhere."""
        if generator.random() < 0.2:
            return self._somewhere(generator)
        angle, away = generator.uniform(-np.pi, np.pi), AROUND_M * np.sqrt(generator.random())
        beside = away * np.array([np.cos(angle), np.sin(angle), 0.0])
        return self.place + beside + np.array([0.0, 0.0, generator.uniform(CLEAR_M, 3 * CLEAR_M)])

    def _is_above(self, position: np.ndarray) -> bool:
        return bool(np.linalg.norm((position - self.place)[:2]) < 0.015 and not self.closed)

    def _is_high(self, position: np.ndarray) -> bool:
        return bool(position[2] > self.place[2] + 0.7 * CLEAR_M)

    def _stopped(self, position: np.ndarray) -> bool:
        """Whether the last step went down and was held up."""
        return bool(self._sent[2] < -0.01 and (position - self._before)[2] > RESISTED * self._sent[2])


def fumble(reach: Reach) -> Handle:
    """Handling with many grasps that miss: a world model learns from them which do not."""
    return Handle(reach, push=0.1, off_m=FUMBLED_M)


def play(reach: Reach) -> Handle:
    """Handling with many pushes, slips and half grasps, as a planner's candidates contain them."""
    return Handle(reach, push=0.1, grope=0.05, noise_m=0.01, off_m=0.02, play=0.9)


def survey(reach: Reach) -> Handle:
    """Handling with many looks at what was put down, from beside it and with all openings of the fingers."""
    return Handle(reach, push=0.0, grope=0.0, circle=0.8)
