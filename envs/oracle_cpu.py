"""The simulator itself as a world model: every candidate plan is simulated from the present state, on all CPU threads.

The upper bound for any learned model, and the judge of planners. It reads the environment and never disturbs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import mujoco
import mujoco.rollout
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.shapes import check_shape
from core.types import Context, Latents, Observation, Plans, Rollout
from envs.arm import SUBSTEPS
from envs.reach import ReachEnv
from envs.snapshot import GUESS, PHYSICS, Snapshot, from_vector, snapshot_dim

HAND_SENSORS = 3
Array = NDArray[np.float64]


class StatePerception:
    """Perceives what no camera sees: the latent of an observation is the environment's own full state.

    Args:
        env: The environment that the observations come from; only its present is known.
    """

    def __init__(self, env: ReachEnv) -> None:
        self.env = env

    def __call__(self, observation: Observation) -> Latents:
        """The present state as latents `B=1 T=1 N=1 D`, float64.

        Raises:
            ValueError: If the observation holds more than one world or moment.
        """
        if observation.frames.shape[:2] != (1, 1):
            raise ValueError(
                f"the true state is known for one world and moment, got (B, T) = {tuple(observation.frames.shape[:2])}"
            )
        return torch.from_numpy(self.env.state())[None, None, None]


def true_goal(env: ReachEnv) -> Annotated[Tensor, "B Q"]:
    """What the sensors of `TrueDynamics` read at the goal: hand position `(1, 3)` in the base frame (m), float64."""
    return torch.from_numpy(np.array(env.goal_m, dtype=np.float64))[None]


class TrueDynamics:
    """Simulates plans in the lab that the environment is in now.

    Latents are full states (see `ReachEnv.state`) of one token in float64; sensors are the hand's position in the base
    frame (m). A candidate whose simulation breaks down is not valid, and NaN from that step on. Not differentiable.

    Args:
        env: The environment; its model is read, its state is left alone.
        num_threads: CPU threads to simulate with.

    Raises:
        ValueError: If num_threads is not positive.
    """

    def __init__(self, env: ReachEnv, *, num_threads: int = 1) -> None:
        if num_threads < 1:
            raise ValueError(f"need num_threads >= 1, got {num_threads}")
        self.env = env
        self._pool = mujoco.rollout.Rollout(nthread=num_threads if num_threads > 1 else 0)
        self._scratch = [mujoco.MjData(env.scene.model) for _ in range(num_threads)]

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """Simulate candidate plans `B S H A` from the last state of the context.

        Raises:
            ValueError: If shapes do not fit or the latents are not float64.
        """
        sizes = check_shape(plans, "B S H A", A=self.env.action_box.dim)
        dim = snapshot_dim(self.env.scene.model)
        check_shape(context.latents, "B T N D", B=sizes["B"], N=1, D=dim)
        if context.latents.dtype != torch.float64:
            raise ValueError(f"true states are float64: in {context.latents.dtype} they would not be exact any more")
        count = sizes["B"] * sizes["S"]
        actions = plans.detach().to("cpu", torch.float64).reshape(count, sizes["H"], -1).numpy()
        begin = context.latents[:, -1, 0].detach().cpu().repeat_interleave(sizes["S"], dim=0).numpy()
        states, hands = self._simulate(begin, actions)
        valid = np.isfinite(states[:, -1]).all(axis=-1)
        shape = (sizes["B"], sizes["S"], sizes["H"])
        return Rollout(
            latents=torch.from_numpy(states).reshape(*shape, 1, dim),
            sensors=torch.from_numpy(hands).reshape(*shape, HAND_SENSORS),
            valid=torch.from_numpy(valid).reshape(shape[:2]),
        )

    def close(self) -> None:
        """End the threads."""
        self._pool.close()

    def _simulate(self, begin: Array, actions: Array) -> tuple[Array, Array]:
        """States and hand positions after every step; NaN where a row broke down."""
        count, horizon = actions.shape[:2]
        states = np.full((count, horizon, begin.shape[1]), np.nan)
        hands = np.full((count, horizon, HAND_SENSORS), np.nan)
        model, kinematics = self.env.scene.model, self.env.arm.kinematics
        alive = {row: from_vector(model, begin[row]) for row in range(count) if np.isfinite(begin[row]).all()}
        for step in range(horizon):
            alive = self._advance(alive, actions[:, step])
            for row, now in alive.items():
                states[row, step] = now.vector()
                hands[row, step] = kinematics.pose(now.physics[1:8])[0]
        return states, hands

    def _advance(self, before: dict[int, Snapshot], actions: Array) -> dict[int, Snapshot]:
        """One control step of each row; rows that break down are left out of the answer."""
        before = {row: now for row, now in before.items() if np.isfinite(actions[row]).all()}
        if not before:
            return {}
        arm, box = self.env.arm, self.env.action_box
        low, high = box.low.double().numpy(), box.high.double().numpy()
        commands = {
            row: arm.next_command(np.clip(actions[row], low, high), now.physics[1:8], now.command)
            for row, now in before.items()
        }
        controls = np.stack([arm.ramp(now.command.controls(), commands[row].controls()) for row, now in before.items()])
        paths, _ = self._pool.rollout(
            self.env.scene.model,
            self._scratch,
            np.stack([now.physics for now in before.values()]),
            controls,
            initial_warmstart=np.stack([now.guess for now in before.values()]),
        )
        whole = self._unbroken(paths, [now.physics[0] for now in before.values()])
        return {
            row: Snapshot(
                physics=path[-1].copy(),
                command=commands[row],
                steps=now.steps + 1,
                guess=self._guess(path[-2], control[-1], now.guess),
            )
            for (row, now), path, control, fine in zip(before.items(), paths, controls, whole, strict=True)
            if fine
        }

    def _unbroken(self, paths: Array, began_s: Sequence[float]) -> NDArray[np.bool_]:
        """Which paths `(rows, SUBSTEPS, state)` are finite and never jump in time.

        MuJoCo resets a diverging simulation on its own, to a finite pose that may even look good; its clock betrays it.
        """
        due = self.env.scene.model.opt.timestep * np.arange(1, SUBSTEPS + 1)
        on_time = np.abs(paths[:, :, 0] - np.array(began_s)[:, None] - due).max(axis=1) < 1e-6
        return on_time & np.isfinite(paths).all(axis=(1, 2))

    def _guess(self, physics: Array, controls: Array, first: Array) -> Array:
        """The accelerations of one physics step, from which the solver of the next one sets out."""
        model, data = self.env.scene.model, self._scratch[0]
        mujoco.mj_setState(model, data, physics, PHYSICS)
        mujoco.mj_setState(model, data, first, GUESS)
        data.ctrl[:] = controls
        mujoco.mj_forward(model, data)
        return data.qacc.copy()
