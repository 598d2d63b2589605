"""The full state of a robot task as one float64 vector: physics, last command, step count, the solver's warm start.

With the warm start (the accelerations of the previous step) a restored simulation continues bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.arm import ArmCommand
from jepa_mpc.envs.plant import GUESS, PHYSICS, layout_of
from jepa_mpc.envs.robots import Robot


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One moment of a simulation.

    Args:
        physics: Time (s), positions, velocities and activations, as MuJoCo orders them.
        command: The last command of the servos.
        steps: Control steps since the start of the episode.
        guess: Accelerations of the last physics step.
    """

    physics: NDArray[np.float64]
    command: ArmCommand
    steps: int
    guess: NDArray[np.float64]

    def vector(self) -> NDArray[np.float64]:
        """All entries in one row."""
        return np.concatenate([self.physics, self.command.row(), [self.steps], self.guess])


def from_vector(robot: Robot, model: mujoco.MjModel, vector: NDArray[np.float64]) -> Snapshot:
    """The snapshot in a vector.

    Raises:
        ValueError: If the vector has another length.
    """
    layout, told = layout_of(model, robot.told.dim), robot.told
    if vector.shape != (layout.dim,):
        raise ValueError(f"state must have shape ({layout.dim},), got {vector.shape}")
    physics, command, steps, guess = layout.split(np.array(vector, dtype=np.float64))
    return Snapshot(
        physics=physics,
        command=ArmCommand(command[told.joints], command[told.rotation].reshape(3, 3), float(command[told.opening][0])),
        steps=int(steps[0]),
        guess=guess,
    )


def take(model: mujoco.MjModel, data: mujoco.MjData, command: ArmCommand, steps: int) -> Snapshot:
    """The current moment of a simulation."""
    physics, guess = (np.empty(mujoco.mj_stateSize(model, part)) for part in (PHYSICS, GUESS))
    mujoco.mj_getState(model, data, physics, PHYSICS)
    mujoco.mj_getState(model, data, guess, GUESS)
    return Snapshot(physics=physics, command=command, steps=steps, guess=guess)


def restore(robot: Robot, model: mujoco.MjModel, data: mujoco.MjData, snapshot: Snapshot) -> None:
    """Restore a simulation; everything derived from the state is recomputed."""
    mujoco.mj_setState(model, data, snapshot.physics, PHYSICS)
    data.ctrl[:] = robot.targets(snapshot.command.joints, np.array([snapshot.command.opening_m]))
    mujoco.mj_forward(model, data)
    mujoco.mj_setState(model, data, snapshot.guess, GUESS)
