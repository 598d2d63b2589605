"""True dynamics on MuJoCo Warp: thousands of candidates in parallel on an NVIDIA GPU, and the same on a CPU.

It simulates in float32, so it agrees with `envs.oracle_cpu` to about a thousandth of the motion over a second, and less
at contacts. On a CPU it is slow and only useful for testing.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.breakdown import CLOCK_TOLERANCE_S, LARGEST_NUMBER, overlapping
from jepa_mpc.envs.oracle_cpu import Simulated, roll_out
from jepa_mpc.envs.plant import Array, Plant, StateLayout, layout_of
from jepa_mpc.envs.warp_package import import_warp
from jepa_mpc.types import Context, Plans, Rollout

KNOWN_SIZES = 2  # a full batch and the remainder
CLOCK_ROUNDING = 1e-5  # relative: the clock is float32, too


class WarpDynamics:
    """Simulates plans in the current task with MuJoCo Warp, as `TrueDynamics` does.

    A candidate is invalid, and NaN from that control step on, if its state is not finite or out of bounds, or its clock
    does not advance. The signals of a plant with feedback are computed on the CPU at each control step. The device's
    model is built once, and rebuilt after a change of the task's model (another lab, an object that drifts); its data
    are built once per number of rows.

    Args:
        env: The environment; its model is read, its state is not modified.
        device: Warp's name of the device ("cuda:0", "cpu"), or None for its default.
        memory_mib: Memory limit of the arrays of one batch of rows (MiB).
        max_contacts: Maximum number of contacts per row.
        max_constraints: Maximum number of constraint rows per row.

    Raises:
        ValueError: If a size is not positive.
        MissingPackage: If mujoco-warp is not installed.
    """

    def __init__(
        self,
        env: Simulated,
        *,
        device: str | None = None,
        memory_mib: float = 256.0,
        max_contacts: int = 64,
        max_constraints: int = 256,
    ) -> None:
        if not memory_mib > 0 or max_contacts < 1 or max_constraints < 1:
            raise ValueError(f"sizes must be positive, got {memory_mib}, {max_contacts}, {max_constraints}")
        self._wp, self._mjw = import_warp("jepa_mpc.envs.oracle_warp")
        self.env = env
        self.device = device
        self.memory_mib = memory_mib
        self.max_contacts, self.max_constraints = max_contacts, max_constraints
        self._worlds: _Worlds | None = None

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """Simulate candidate plans `B S H A`, clipped to the box, from the last state of the context.

        Raises:
            ValueError: If shapes do not fit or the latents are not float64.
        """
        return roll_out(self.env.plant, self._simulate, context, plans, memory_mib=self.memory_mib)

    def close(self) -> None:
        """Free the arrays on the device."""
        self._worlds = None

    def _simulate(self, begin: Array, actions: Array) -> tuple[Array, Array]:
        """States `(R, H, D)` and sensors `(R, H, Q)` of rows; NaN from the divergence of a row on."""
        plant, model = self.env.plant, self.env.plant.model
        layout = layout_of(model, plant.memory_dim)
        if layout.physics_dim != 1 + model.nq + model.nv + model.na:
            raise ValueError(
                "MuJoCo Warp does not support plugins and delays: simulate this model with envs.oracle_cpu"
            )
        states = np.full((len(begin), actions.shape[1], layout.dim), np.nan)
        sensors = np.full((len(begin), actions.shape[1], len(plant.sensors)), np.nan)
        worlds = self._ready(plant)
        deep = overlapping(model, worlds.scratch, begin[:, : layout.physics_dim], plant.deepest_overlap_m)
        rows = np.flatnonzero(np.isfinite(begin).all(axis=1) & ~deep)
        if rows.size:
            with self._wp.ScopedDevice(self.device):
                states[rows], sensors[rows] = _march(worlds, layout, begin[rows], actions[rows])
        return states, sensors

    def _ready(self, plant: Plant) -> _Worlds:
        """The worlds of the current model."""
        written = _written(plant.model)
        if self._worlds is None or not np.array_equal(self._worlds.written, written):
            with self._wp.ScopedDevice(self.device):
                limits = (self.max_contacts, self.max_constraints)
                self._worlds = _Worlds(self._wp, self._mjw, plant, written=written, limits=limits)
        return self._worlds


class _Worlds:
    """Batches of simulated rows on the device.

    Args:
        warp, mujoco_warp: The packages.
        plant: The simulated plant.
        written: The model's numbers, as `_written` reads them.
        limits: Maximum numbers of contacts and constraint rows per row.
    """

    def __init__(
        self, warp: Any, mujoco_warp: Any, plant: Plant, *, written: NDArray[np.uint8], limits: tuple[int, int]
    ) -> None:
        self.warp, self.mjw, self.plant, self.written, self.limits = warp, mujoco_warp, plant, written, limits
        self.scratch = mujoco.MjData(plant.model)
        self.model = mujoco_warp.put_model(plant.model)
        self.data: Any = None
        self._known: dict[int, Any] = {}

    def place(self, physics: Array, guess: Array) -> None:
        """Set physics `(R, F)` and the solver's warm start `(R, nv)`."""
        model = self.plant.model
        self.data = self._cleared(len(physics))
        parts = np.split(physics, np.cumsum([1, model.nq, model.nv]), axis=1)
        for name, part in zip(("qpos", "qvel", "act"), parts[1:], strict=True):
            if part.shape[1]:
                getattr(self.data, name).assign(part.astype(np.float32))
        self.data.time.assign(physics[:, 0].astype(np.float32))
        self.data.qacc_warmstart.assign(guess.astype(np.float32))

    def _cleared(self, rows: int) -> Any:
        """Freshly reset data for this number of rows."""
        if rows in self._known:
            self.mjw.reset_data(self.model, self._known[rows])
            return self._known[rows]
        while len(self._known) >= KNOWN_SIZES:
            del self._known[next(iter(self._known))]
        contacts, constraints = self.limits
        made = self.mjw.make_data(self.plant.model, nworld=rows, nconmax=contacts, njmax=constraints)
        self._known[rows] = made
        return made

    def advance(self, signals: Array) -> tuple[Array, Array, Array]:
        """Physics `(R, F)`, warm start `(R, nv)` and sensordata `(R, n)` after signals `(R, substeps, nu)`."""
        if signals.shape[2]:
            sent = self.warp.array(np.ascontiguousarray(signals.swapaxes(0, 1), dtype=np.float32), dtype=float)
        for step in range(signals.shape[1]):
            if signals.shape[2]:
                self.warp.copy(self.data.ctrl, sent[step])
            self.mjw.step(self.model, self.data)
        parts = [self.data.time.numpy()[:, None], self.data.qpos.numpy(), self.data.qvel.numpy()]
        if self.plant.model.na:
            parts.append(self.data.act.numpy())
        guess = self.data.qacc_warmstart.numpy().astype(np.float64)
        self.mjw.forward(self.model, self.data)  # the sensors after the step
        sensed = self.data.sensordata.numpy().astype(np.float64)
        return np.concatenate(parts, axis=1).astype(np.float64), guess, sensed


def _march(worlds: _Worlds, layout: StateLayout, begin: Array, actions: Array) -> tuple[Array, Array]:
    """Simulate all control steps of rows with a valid start."""
    plant = worlds.plant
    physics, memory, steps, guess = layout.split(begin)
    worlds.place(physics, guess)
    states, sensors = [], []
    fine: NDArray[np.bool_] = np.ones(len(begin), dtype=bool)
    for at in range(actions.shape[1]):
        sane = np.asarray(np.isfinite(actions[:, at]).all(axis=1))
        action = np.where(sane[:, None], actions[:, at], 0.0)[:, None]
        felt = np.where(fine[:, None], physics, begin[:, : layout.physics_dim])
        signals, memories = plant.controls(felt, memory, action)
        due_s = physics[:, 0] + plant.substeps * plant.model.opt.timestep
        physics, guess, sensed = worlds.advance(signals)
        memory, steps = memories[:, -1], steps + 1
        on_time = np.abs(physics[:, 0] - due_s) < CLOCK_TOLERANCE_S * 10 + CLOCK_ROUNDING * np.abs(due_s)
        within = np.abs(physics[:, 1:]) <= LARGEST_NUMBER  # False for NaN, too
        fine = np.asarray(fine & sane & on_time & within.all(axis=1))
        row = np.concatenate([physics, memory, steps, guess], axis=1)
        states.append(np.where(fine[:, None], row, np.nan))
        sensors.append(np.where(fine[:, None], plant.read(physics[:, None], sensed[:, None])[:, 0], np.nan))
    return np.stack(states, axis=1), np.stack(sensors, axis=1)


def _written(model: mujoco.MjModel) -> NDArray[np.uint8]:
    """All numbers of a model."""
    written = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, written)
    return written
