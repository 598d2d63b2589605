"""Detection of diverged simulations, for one environment and for many rows in parallel.

MuJoCo resets a diverging simulation to a finite pose, which may look plausible, and counts a warning. `mujoco.rollout`
freezes a row at the first warning. In both cases the simulation's clock reveals it.
"""

from __future__ import annotations

import logging

import mujoco
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.plant import PHYSICS, Array

LOGGER = logging.getLogger(__name__)
CLOCK_TOLERANCE_S = 1e-6
LARGEST_NUMBER = 1e6  # far above any position (m, rad) or speed of a working robot

mujoco.set_mju_user_warning(lambda message: LOGGER.debug("MuJoCo: %s", message))  # no log file in the working directory


def warnings(data: mujoco.MjData) -> NDArray[np.int64]:
    """Number of MuJoCo warnings of each kind."""
    return np.array([kind.number for kind in data.warning])


def unfit(action: Array, data: mujoco.MjData, deepest_overlap_m: float = np.inf) -> str | None:
    """Why a step cannot be simulated (action, state, or penetrating bodies); None if it can."""
    if not np.isfinite(action).all():
        return f"the action holds values that are not finite: {np.asarray(action).tolist()}"
    if not np.isfinite(data.qpos).all() or not np.isfinite(data.qvel).all():
        return "the simulated state is not finite"
    if overlap_m(data) > deepest_overlap_m:
        return f"bodies are {100 * overlap_m(data):.1f} cm inside each other"
    return None


def overlap_m(data: mujoco.MjData) -> float:
    """Deepest penetration of bodies in metres; 0 or less without any."""
    return -float(data.contact.dist.min()) if data.ncon else 0.0


def overlapping(model: mujoco.MjModel, data: mujoco.MjData, physics: Array, deepest_m: float) -> NDArray[np.bool_]:
    """Mask of the rows of physics `(R, F)` with deeper penetration; equal neighbouring rows are evaluated once.

    Args:
        model: The model.
        data: Scratch data, overwritten.
        physics: States; non-finite rows are skipped.
        deepest_m: Maximum allowed penetration.
    """
    found = np.zeros(len(physics), dtype=bool)
    if not np.isfinite(deepest_m):
        return found
    last, verdict = np.full(physics.shape[1], np.nan), False
    for row in np.flatnonzero(np.isfinite(physics).all(axis=1)):
        if not np.array_equal(physics[row], last):
            last = physics[row]
            mujoco.mj_setState(model, data, last, PHYSICS)
            mujoco.mj_fwdPosition(model, data)
            verdict = overlap_m(data) > deepest_m
        found[row] = verdict
    return found


def broken(data: mujoco.MjData, before: NDArray[np.int64], due_s: float) -> str | None:
    """Reason for a divergence while simulating up to `due_s`, given the warnings `before`; None if there is none."""
    raised = np.flatnonzero(warnings(data) - before)
    if raised.size:
        return "MuJoCo warned: " + ", ".join(mujoco.mjtWarning(int(kind)).name for kind in raised)
    if not np.isfinite(data.qpos).all() or not np.isfinite(data.qvel).all():
        return "the simulated state is not finite"
    if abs(data.time - due_s) > CLOCK_TOLERANCE_S:
        return f"simulated time went to {data.time:.3f} s instead of {due_s:.3f} s"
    if max(np.abs(data.qpos).max(initial=0.0), np.abs(data.qvel).max(initial=0.0)) > LARGEST_NUMBER:
        return f"a position or speed is beyond {LARGEST_NUMBER:.0e}"
    return None


def unbroken(physics: Array, began_s: Array, timestep_s: float) -> NDArray[np.bool_]:
    """How long each row is valid.

    Args:
        physics: Physics `(R, n + 1, F)` after each of n physics steps and one more, time first.
        began_s: Start time `(R,)` of each row.
        timestep_s: Length of a physics step.

    Returns:
        `(R, n)`: whether the row was finite, on time and within bounds after that step and all earlier ones. A warning
        in the last step shows in the additional one, where the row is frozen.
    """
    count = physics.shape[1] - 1
    due_s = began_s[:, None] + timestep_s * np.arange(1, count + 1)
    on_time = np.abs(physics[:, :count, 0] - due_s) < CLOCK_TOLERANCE_S
    within = (np.abs(physics[:, :count, 1:]) <= LARGEST_NUMBER).all(axis=-1)  # False for NaN, too
    moving = physics[:, 1:, 0] != physics[:, :count, 0]
    return np.asarray(np.logical_and.accumulate(on_time & within & moving, axis=1))
