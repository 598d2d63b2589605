"""The interface between a task and its true dynamics: model, control signals, sensors.

A plant has no state. The state of a task is one row of float64, in the order of `StateLayout`:

    physics (time, positions, velocities, activations) | memory (last command) | step count | the solver's warm start
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.types import ActionBox

Array = NDArray[np.float64]
PHYSICS = mujoco.mjtState.mjSTATE_FULLPHYSICS
GUESS = mujoco.mjtState.mjSTATE_WARMSTART
EVERYTHING = mujoco.mjtState.mjSTATE_INTEGRATION
TIME_DIM = 1  # a row of physics begins with the time (s); the positions follow
WHOLE_PLAN = 1_000_000


class Plant(Protocol):
    """The part of a task that true dynamics simulate.

    Axis letters: R rows (worlds times candidates), K control steps, A action, Q sensors.

    Attributes:
        model: The MuJoCo model; a reset of the task may replace it.
        box: Bounds of one action, in physical units.
        substeps: Physics steps per control step.
        memory_dim: Width of the memory carried between steps, in addition to the physics.
        span: Number of control steps whose actuator signals depend on the actions alone, not on the physics in between:
            1 for feedback at every step, `WHOLE_PLAN` for no feedback.
        sensors: Name and unit of each of the Q sensors.
        deepest_overlap_m: Penetration of bodies that counts as a divergence; infinite for no such rule.
    """

    box: ActionBox
    substeps: int
    memory_dim: int
    span: int
    sensors: tuple[str, ...]
    deepest_overlap_m: float

    @property
    def model(self) -> mujoco.MjModel:
        """The current MuJoCo model."""

    def controls(self, physics: Array, memory: Array, actions: Array) -> tuple[Array, Array]:
        """Actuator signals of up to `span` control steps.

        Args:
            physics: Current physics `(R, F)`.
            memory: Current memory `(R, memory_dim)`.
            actions: Actions `(R, K, A)` inside the box, K at most `span`.

        Returns:
            Signals `(R, K * substeps, nu)`, and the memory after each control step `(R, K, memory_dim)`.
        """

    def read(self, physics: Array, sensordata: Array) -> Array:
        """Sensors `(R, K, Q)` of physics `(R, K, F)` and the model's own sensors `(R, K, nsensordata)`."""


@dataclass(frozen=True)
class StateLayout:
    """Layout of a state row.

    Args:
        physics_dim: Width of the physics.
        memory_dim: Width of the memory.
        guess_dim: Width of the solver's warm start.
    """

    physics_dim: int
    memory_dim: int
    guess_dim: int

    @property
    def dim(self) -> int:
        """Length of a row."""
        return self.physics_dim + self.memory_dim + 1 + self.guess_dim

    def split(self, rows: Array) -> tuple[Array, Array, Array, Array]:
        """Physics, memory, step count and warm start of rows `(..., dim)`."""
        ends = np.cumsum([self.physics_dim, self.memory_dim, 1])
        physics, memory, steps, guess = np.split(rows, ends, axis=-1)
        return physics, memory, steps, guess


def layout_of(model: mujoco.MjModel, memory_dim: int) -> StateLayout:
    """The layout of a task's state rows."""
    return StateLayout(mujoco.mj_stateSize(model, PHYSICS), memory_dim, mujoco.mj_stateSize(model, GUESS))


Reading = Callable[[Array, Array], Array]


class DirectPlant:
    """A task whose actions are the actuator signals (times a gain), held for a whole control step.

    Args:
        model: The MuJoCo model.
        box: Bounds of one action; as many axes as the model has actuators.
        substeps: Physics steps per control step.
        sensors: Name and unit of each sensor.
        reading: Maps physics `(R, K, F)` and the model's sensors `(R, K, n)` to sensors `(R, K, Q)`.
        gain: Actuator signal of an action of 1, per axis or for all.

    Raises:
        ValueError: If the box does not have one axis per actuator, or substeps is not positive.
    """

    memory_dim = 0
    span = WHOLE_PLAN
    deepest_overlap_m = math.inf

    def __init__(
        self,
        model: mujoco.MjModel,
        *,
        box: ActionBox,
        substeps: int,
        sensors: tuple[str, ...],
        reading: Reading,
        gain: Array | float = 1.0,
    ) -> None:
        if box.dim != model.nu or substeps < 1:
            raise ValueError(
                f"need one action axis per actuator ({model.nu}) and substeps >= 1, got {box.dim} and {substeps}"
            )
        self.model = model
        self.box = box
        self.substeps = substeps
        self.sensors = sensors
        self.gain = gain
        self._reading = reading

    def controls(self, physics: Array, memory: Array, actions: Array) -> tuple[Array, Array]:
        """The actions times the gain, each held for `substeps` physics steps."""
        return np.repeat(actions * self.gain, self.substeps, axis=1), np.zeros((*actions.shape[:2], 0))

    def read(self, physics: Array, sensordata: Array) -> Array:
        """Sensors `(R, K, Q)`."""
        return self._reading(physics, sensordata)
