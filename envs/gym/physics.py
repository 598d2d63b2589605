"""MuJoCo environments of gymnasium as plants: simulated by `mujoco.rollout`, observed from their states."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import gymnasium
import mujoco
import numpy as np
import torch

from jepa_mpc.envs.gym.goals import GymGoal
from jepa_mpc.envs.gym.making import flat
from jepa_mpc.envs.gym.moments import Moment
from jepa_mpc.envs.gym.states import plain_mujoco
from jepa_mpc.envs.oracle_cpu import TrueDynamics
from jepa_mpc.envs.plant import PHYSICS, Array, DirectPlant
from jepa_mpc.types import ActionBox, Context

AGREEMENT = 1e-9


class Adapted(Protocol):
    """An adapted environment."""

    wanted: GymGoal
    action_box: ActionBox

    @property
    def own(self) -> gymnasium.Env[Any, Any]:
        """The wrapped environment."""

    @property
    def moment(self) -> Moment:
        """The current moment of the episode."""

    @property
    def plant(self) -> DirectPlant:
        """The simulated plant."""

    def state(self) -> Array:
        """The current state as one row."""

    def goal_sensors(self) -> Array:
        """The sensors at the goal."""

    def undisturbed(self) -> AbstractContextManager[None]:
        """Restores the environment at the end of the block."""


def plant_of(env: Adapted) -> DirectPlant | None:
    """The plant; None if it is not a MuJoCo environment, or lacks a goal observation or one action per actuator."""
    own: Any = env.own.unwrapped
    unknown = env.wanted.observation is None and env.wanted.later is None
    if unknown or not plain_mujoco(env.own) or env.action_box.dim != own.model.nu:
        return None
    count = len(env.moment.observation)
    return DirectPlant(
        own.model,
        box=env.action_box,
        substeps=own.frame_skip * env.wanted.repeat,
        sensors=(*(f"observation {axis}" for axis in range(count)), "reward", "ended"),
        reading=lambda physics, sensordata: observed(env, physics),
    )


def observed(env: Adapted, physics: Array) -> Array:
    """Sensors of physics `(R, K, F)`: the environment's observation of each state; the reward is unknown."""
    own: Any = env.own.unwrapped
    sensors = np.full((*physics.shape[:2], len(env.moment.observation) + 2), np.nan)
    sensors[..., -1] = 0.0
    with env.undisturbed():
        for index in np.ndindex(*physics.shape[:2]):
            if np.isfinite(physics[index]).all():
                mujoco.mj_setState(own.model, own.data, physics[index], PHYSICS)
                mujoco.mj_forward(own.model, own.data)
                sensors[index][:-2] = flat(own, own._get_obs())
    return sensors


def moves_alike(env: Adapted, begin: Array, actions: Array, states: Array) -> bool:
    """Whether `mujoco.rollout` reproduces the environment's own steps: states `(H, D)` after actions `(H, A)`."""
    context = Context(latents=torch.from_numpy(begin)[None, None, None], actions=torch.zeros(1, 0, actions.shape[1]))
    rolled = TrueDynamics(env).rollout(context, torch.from_numpy(actions)[None, None]).latents[0, 0, :, 0].numpy()
    size = mujoco.mj_stateSize(env.plant.model, PHYSICS)
    return bool(np.allclose(rolled[:, :size], states[:, :size], rtol=0, atol=AGREEMENT))
