"""Reward-free exploration motion for recording logs.

A motion reads proprioception, the action box and a numpy generator, never the simulator. Proprioception ends in the end
effector's position (m) and rotation vector (rad) in the base frame; an action begins with a displacement in metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.random import Generator

from jepa_mpc.types import ActionBox


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The limits of a motion.

    Args:
        box: Bounds of one action; axes of zero width stay fixed.
        low: Lowest end-effector position in the base `3`, m.
        high: Highest end-effector position in the base `3`, m.
    """

    box: ActionBox
    low: np.ndarray = field(default_factory=lambda: np.array([0.28, -0.28, 0.05]))
    high: np.ndarray = field(default_factory=lambda: np.array([0.65, 0.28, 0.45]))

    def clip(self, action: np.ndarray) -> np.ndarray:
        """The nearest action inside the box."""
        return np.clip(action, self.box.low.numpy(), self.box.high.numpy()).astype(np.float32)

    @property
    def half_width(self) -> np.ndarray:
        """Half the width of the box on every axis."""
        return (self.box.high - self.box.low).numpy().astype(np.float64) / 2

    @property
    def middle(self) -> np.ndarray:
        """The centre of the box."""
        return (self.box.high + self.box.low).numpy().astype(np.float64) / 2

    def room(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance that the position may move down and up on each axis, m."""
        return self.low - position, self.high - position


class Motion(Protocol):
    """Chooses the next action of an episode."""

    def start(self, proprio: np.ndarray, generator: Generator) -> None:
        """Begin an episode."""

    def __call__(self, proprio: np.ndarray, generator: Generator) -> np.ndarray:
        """The next action `A`, inside the box."""


def position_of(proprio: np.ndarray) -> np.ndarray:
    """End-effector position in the base, m."""
    return proprio[-6:-3].astype(np.float64)


class RandomWalk:
    """A random walk with correlated steps, reflected at the edge of the workspace.

        v_t = c v_{t-1} + sqrt(1 - c^2) s e,   e normal, on every axis of the box

    Args:
        reach: Action box and workspace.
        correlation: c, between 0 (white noise) and 1 (straight line).
        scale: s, standard deviation of a step in half box widths.
    """

    def __init__(self, reach: Reach, *, correlation: float = 0.7, scale: float = 0.6) -> None:
        self.reach, self.correlation, self.scale = reach, correlation, scale
        self.speed = np.zeros(reach.box.dim)

    def start(self, proprio: np.ndarray, generator: Generator) -> None:
        """Draw the first direction."""
        self.speed = generator.normal(size=self.reach.box.dim) * self.scale

    def __call__(self, proprio: np.ndarray, generator: Generator) -> np.ndarray:
        """The next step of the walk."""
        fresh = generator.normal(size=self.reach.box.dim) * self.scale
        self.speed = self.correlation * self.speed + np.sqrt(1 - self.correlation**2) * fresh
        action = self.reach.middle + self.speed * self.reach.half_width
        down, up = self.reach.room(position_of(proprio))
        outward = ((action[:3] < down) & (action[:3] < 0)) | ((action[:3] > up) & (action[:3] > 0))
        self.speed[:3] = np.where(outward, -self.speed[:3], self.speed[:3])
        action[:3] = np.where(outward, -action[:3], action[:3])
        return self.reach.clip(action)


class WayPoints:
    """Moves straight to a random point, with noise, then to the next one.

    Args:
        reach: Action box and workspace.
        noise_m: Standard deviation of the noise on each step, m.
        arrived_m: Distance at which a new point is drawn, m.
    """

    def __init__(self, reach: Reach, *, noise_m: float = 0.01, arrived_m: float = 0.02) -> None:
        self.reach, self.noise_m, self.arrived_m = reach, noise_m, arrived_m
        self.target = np.zeros(3)
        self.speed = 1.0

    def start(self, proprio: np.ndarray, generator: Generator) -> None:
        """Draw the first point and the speed."""
        self.target = generator.uniform(self.reach.low, self.reach.high)
        self.speed = generator.uniform(0.4, 1.0)

    def __call__(self, proprio: np.ndarray, generator: Generator) -> np.ndarray:
        """One step towards the point, limited by the action box."""
        gap = self.target - position_of(proprio)
        if np.linalg.norm(gap) < self.arrived_m:
            self.start(proprio, generator)
            gap = self.target - position_of(proprio)
        action = self.reach.middle.copy()
        longest = self.speed * max(self.reach.half_width[:3].max(), 1e-9)
        step = gap * min(1.0, longest / np.linalg.norm(gap))
        action[:3] = step + generator.normal(size=3) * self.noise_m
        action[3:] += generator.uniform(-1, 1, size=len(action) - 3) * self.reach.half_width[3:]
        return self.reach.clip(action)


class SmallMoves:
    """Fine motion: short steps in random directions, so that a model learns to hold still and to correct small errors.

    Args:
        reach: Action box and workspace.
        longest_m: Longest step, m.
    """

    def __init__(self, reach: Reach, *, longest_m: float = 0.02) -> None:
        self.reach, self.longest_m = reach, longest_m

    def start(self, proprio: np.ndarray, generator: Generator) -> None:
        """Has no state."""

    def __call__(self, proprio: np.ndarray, generator: Generator) -> np.ndarray:
        """A short step, reversed where it would leave the workspace."""
        direction = generator.normal(size=3)
        step = direction / np.linalg.norm(direction) * generator.uniform(0, self.longest_m)
        down, up = self.reach.room(position_of(proprio))
        action = self.reach.middle.copy()
        action[:3] = np.where((step < down) | (step > up), -step, step)
        return self.reach.clip(action)


class Mixture:
    """Several motions: one is drawn at the start, and again at random times.

    Args:
        motions: The motions.
        shares: Relative frequency of each motion.
        switch: Probability of a new draw at each step.
    """

    def __init__(self, motions: Sequence[Motion], *, shares: Sequence[float], switch: float = 0.1) -> None:
        if len(motions) != len(shares) or not motions:
            raise ValueError(f"need one share per motion, got {len(motions)} motions and {len(shares)} shares")
        self.motions, self.switch = list(motions), switch
        self.shares = np.asarray(shares, dtype=np.float64) / np.sum(shares)
        self.present = self.motions[0]

    def start(self, proprio: np.ndarray, generator: Generator) -> None:
        """Draw the first motion."""
        self.present = self.motions[int(generator.choice(len(self.motions), p=self.shares))]
        self.present.start(proprio, generator)

    def __call__(self, proprio: np.ndarray, generator: Generator) -> np.ndarray:
        """The next action of the current motion."""
        if generator.random() < self.switch:
            self.start(proprio, generator)
        return self.present(proprio, generator)


class WithFailures:
    """Adds actuator failures to a motion: it stalls, overshoots, or requests more than the box and is clipped.

    Args:
        motion: The motion to disturb.
        reach: Action box and workspace.
        rate: Probability per step that a failure begins.
        longest: Longest failure, in steps.
    """

    KINDS = ("stall", "overshoot", "saturate")

    def __init__(self, motion: Motion, *, reach: Reach, rate: float = 0.05, longest: int = 4) -> None:
        self.motion, self.reach, self.rate, self.longest = motion, reach, rate, longest
        self.left, self.kind = 0, "stall"

    def start(self, proprio: np.ndarray, generator: Generator) -> None:
        """Begin without a failure."""
        self.left = 0
        self.motion.start(proprio, generator)

    def __call__(self, proprio: np.ndarray, generator: Generator) -> np.ndarray:
        """The motion's action, changed by the current failure if there is one."""
        action = self.motion(proprio, generator)
        if self.left == 0 and generator.random() < self.rate:
            self.left = int(generator.integers(1, self.longest + 1))
            self.kind = str(generator.choice(self.KINDS))
        if self.left == 0:
            return action
        self.left -= 1
        strength = {"stall": 0.0, "overshoot": 1.8, "saturate": 10.0}[self.kind]
        middle = self.reach.middle
        return self.reach.clip(middle + strength * (action - middle))


def reward_free_motion(reach: Reach) -> Motion:
    """The default mixture: random walks, way-points, a fifth of fine motion, all with failures."""
    mixture = Mixture([RandomWalk(reach), WayPoints(reach), SmallMoves(reach)], shares=[0.4, 0.4, 0.2])
    return WithFailures(mixture, reach=reach)
