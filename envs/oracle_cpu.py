"""The simulator as a world model: every candidate plan is simulated from the current state, on CPU threads.

The upper bound of learned models, and the reference for planners. It reads a task's plant and never modifies the task.
"""

from __future__ import annotations

from typing import Annotated, Protocol

import mujoco
import mujoco.rollout
import numpy as np
import torch
from torch import Tensor

from jepa_mpc.envs.breakdown import overlap_m, overlapping, unbroken
from jepa_mpc.envs.plant import GUESS, PHYSICS, WHOLE_PLAN, Array, Plant, StateLayout, layout_of
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Context, Latents, Observation, Plans, Rollout

BYTES_PER_NUMBER = 8


class Simulated(Protocol):
    """An environment with access to its true state."""

    @property
    def plant(self) -> Plant:
        """The simulated plant."""

    def state(self) -> Array:
        """The full state as one row (see `envs.plant`), or those of worlds side by side `(B, D)`."""

    def goal_sensors(self) -> Array:
        """The plant's sensors at the goal `(Q,)`."""


class SimulatorPerception:
    """Perceives the true state: the latent of an observation is the environment's full state.

    Args:
        env: The environment of the observations; only its current state is known.
    """

    def __init__(self, env: Simulated) -> None:
        self.env = env

    def __call__(self, observation: Observation) -> Latents:
        """The current states as latents `B T=1 N=1 D`, float64.

        Raises:
            ValueError: If the observation holds other worlds than the environment, or more than one time step.
        """
        states = np.atleast_2d(self.env.state())
        if observation.frames.shape[:2] != (len(states), 1):
            worlds = "one world" if len(states) == 1 else f"{len(states)} worlds"
            raise ValueError(
                f"the true state needs {worlds} and one time step, got (B, T) = {tuple(observation.frames.shape[:2])}"
            )
        return torch.from_numpy(states)[:, None, None]


def true_goal(env: Simulated) -> Annotated[Tensor, "B Q"]:
    """The sensors of `TrueDynamics` at the goal, `(B, Q)` float64."""
    return torch.from_numpy(np.atleast_2d(np.array(env.goal_sensors(), dtype=np.float64)))


class TrueDynamics:
    """Simulates plans in the current task (its model, its lab).

    Latents are full states of one token in float64; sensors are the plant's. A candidate whose simulation diverges (a
    non-finite state, a clock that does not advance, a MuJoCo warning, deeply penetrating bodies) is invalid, and NaN
    from that step on; other candidates are unaffected. Not differentiable. If a plant's signals need no feedback, the
    whole plan is simulated in one call: the solver's warm start is then recomputed from the last physics step (zero in
    the first), so a rollout continued from such a state is equal up to the solver's tolerance, not bit for bit.

    Args:
        env: The environment; its model is read, its state is not modified.
        num_threads: Number of CPU threads.
        memory_mib: Memory limit of the arrays of one batch of rows (MiB); more rows are simulated in several batches.

    Raises:
        ValueError: If num_threads or memory_mib is not positive.
    """

    def __init__(self, env: Simulated, *, num_threads: int = 1, memory_mib: float = 256.0) -> None:
        if num_threads < 1 or not memory_mib > 0:
            raise ValueError(f"need num_threads >= 1 and memory_mib > 0, got {num_threads} and {memory_mib}")
        self.env = env
        self.num_threads = num_threads
        self.memory_mib = memory_mib
        self._pool = mujoco.rollout.Rollout(nthread=num_threads if num_threads > 1 else 0)
        self._known: mujoco.MjModel | None = None
        self._scratch: list[mujoco.MjData] = []

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """Simulate candidate plans `B S H A`, clipped to the box, from the last state of the context.

        Raises:
            ValueError: If shapes do not fit or the latents are not float64.
        """
        return roll_out(self.env.plant, self._simulate, context, plans, memory_mib=self.memory_mib)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.close()

    def _simulate(self, begin: Array, actions: Array) -> tuple[Array, Array]:
        """States `(R, H, D)` and sensors `(R, H, Q)` of rows; NaN from the divergence of a row on."""
        plant = self.env.plant
        self._get_ready(plant.model)
        layout = layout_of(plant.model, plant.memory_dim)
        horizon = actions.shape[1]
        states = np.full((len(begin), horizon, layout.dim), np.nan)
        sensors = np.full((len(begin), horizon, len(plant.sensors)), np.nan)
        deep = overlapping(plant.model, self._scratch[0], begin[:, : layout.physics_dim], plant.deepest_overlap_m)
        now = np.where(deep[:, None], np.nan, begin)
        for start in range(0, horizon, plant.span):
            part = slice(start, min(start + plant.span, horizon))
            rows = np.flatnonzero(np.isfinite(now).all(axis=1))
            if not rows.size:
                break
            states[rows, part], sensors[rows, part] = self._advance(plant, layout, now[rows], actions[rows, part])
            now = states[:, part.stop - 1]
        return states, sensors

    def _advance(self, plant: Plant, layout: StateLayout, begin: Array, actions: Array) -> tuple[Array, Array]:
        """States and sensors of one span of K control steps; simulates one more physics step to read sensors."""
        physics, memory, steps, guess = layout.split(begin)
        count, num_steps = actions.shape[:2]
        sane = np.asarray(np.isfinite(actions).all(axis=2))
        signals, memories = plant.controls(physics, memory, np.where(sane[..., None], actions, 0.0))
        padded = np.concatenate([signals, signals[:, -1:]], axis=1)
        path, sensed = self._pool.rollout(
            plant.model, self._scratch, np.ascontiguousarray(physics), padded, initial_warmstart=guess.copy()
        )
        ends = np.arange(1, num_steps + 1) * plant.substeps
        fine = unbroken(path, physics[:, 0], plant.model.opt.timestep)[:, ends - 1]
        fine = np.asarray(fine & np.logical_and.accumulate(sane, axis=1))
        guesses = np.zeros((count, num_steps, layout.guess_dim))
        for row in np.flatnonzero(fine[:, -1]) if plant.span < WHOLE_PLAN else ():
            before = path[row, -3] if path.shape[1] > 2 else physics[row]
            guesses[row, -1] = self._guess(plant.model, before, signals[row, -1], guess[row])
            fine[row, -1] = overlap_m(self._scratch[0]) <= plant.deepest_overlap_m
        counted = steps[:, None] + np.arange(1, num_steps + 1)[:, None]  # (R, K, 1)
        after = np.concatenate([path[:, ends - 1], memories, counted, guesses], axis=2)
        sensors = plant.read(path[:, ends - 1], sensed[:, ends])
        return np.where(fine[..., None], after, np.nan), np.where(fine[..., None], sensors, np.nan)

    def _guess(self, model: mujoco.MjModel, physics: Array, controls: Array, first: Array) -> Array:
        """The accelerations of one physics step, the solver's warm start for the next one."""
        data = self._scratch[0]
        mujoco.mj_setState(model, data, physics, PHYSICS)
        mujoco.mj_setState(model, data, first, GUESS)
        data.ctrl[:] = controls
        mujoco.mj_forward(model, data)
        return data.qacc.copy()

    def _get_ready(self, model: mujoco.MjModel) -> None:
        if self._known is not model:
            self._known = model
            self._scratch = [mujoco.MjData(model) for _ in range(self.num_threads)]


class Simulate(Protocol):
    """Simulates rows."""

    def __call__(self, begin: Array, actions: Array) -> tuple[Array, Array]:
        """States `(R, H, D)` and sensors `(R, H, Q)` of rows that start at `(R, D)`; NaN after a divergence."""


def roll_out(plant: Plant, simulate: Simulate, context: Context, plans: Plans, *, memory_mib: float) -> Rollout:
    """Check the input, simulate it in batches of rows within the memory limit, and reshape the result.

    Raises:
        ValueError: If shapes do not fit or the latents are not float64.
    """
    sizes = check_shape(plans, "B S H A", A=plant.box.dim)
    dim = layout_of(plant.model, plant.memory_dim).dim
    check_shape(context.latents, "B T N D", B=sizes["B"], N=1, D=dim)
    if context.latents.dtype != torch.float64:
        raise ValueError(f"true states are float64: in {context.latents.dtype} they would not be exact")
    count = sizes["B"] * sizes["S"]
    low, high = plant.box.low.double().cpu().numpy(), plant.box.high.double().cpu().numpy()
    actions = plans.detach().to("cpu", torch.float64).reshape(count, sizes["H"], -1).numpy()
    actions = np.clip(actions, low, high)
    actions[~np.isfinite(plans.detach().cpu().reshape(actions.shape).numpy())] = np.nan  # not clipped to a bound
    begin = context.latents[:, -1, 0].detach().cpu().repeat_interleave(sizes["S"], dim=0).numpy()
    batch = rows_at_once(plant, sizes["H"], memory_mib)
    parts = [simulate(begin[at : at + batch], actions[at : at + batch]) for at in range(0, count, batch)]
    states, sensors = (np.concatenate(part) for part in zip(*parts, strict=True))
    shape = (sizes["B"], sizes["S"], sizes["H"])
    return Rollout(
        latents=torch.from_numpy(states).reshape(*shape, 1, dim),
        sensors=torch.from_numpy(sensors).reshape(*shape, len(plant.sensors)),
        valid=torch.from_numpy(np.isfinite(states[:, -1]).all(axis=-1)).reshape(shape[:2]),
    )


def rows_at_once(plant: Plant, horizon: int, memory_mib: float) -> int:
    """Number of rows whose trajectories, signals and sensors of one span fit in memory."""
    model = plant.model
    steps = min(plant.span, horizon) * plant.substeps + 1
    numbers = steps * (2 * mujoco.mj_stateSize(model, PHYSICS) + 2 * model.nu + model.nsensordata)
    return max(1, int(memory_mib * 2**20 / (BYTES_PER_NUMBER * numbers)))
