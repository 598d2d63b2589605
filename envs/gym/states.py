"""Going back to a moment of a gymnasium environment: exactly in MuJoCo, by copies elsewhere."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, Protocol

import gymnasium
import mujoco
import numpy as np

from jepa_mpc.envs.plant import GUESS, PHYSICS, Array, layout_of

KEPT = 64
"""Copies that can be gone back to; older ones are forgotten."""


class States(Protocol):
    """How moments of an environment are kept."""

    env: gymnasium.Env[Any, Any]

    def take(self, steps: int) -> Array:
        """The present as one row."""

    def passing(self, steps: int) -> Array:
        """The present as a row that need not be gone back to."""

    def put(self, row: Array) -> int:
        """Go back to a row; answers its step count."""


class MujocoStates:
    """States of a MuJoCo environment: physics, step count and the solver's first guess, as in `envs.plant.Layout`.

    Args:
        env: A `gymnasium.envs.mujoco.MujocoEnv`, without wrappers.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.env: Any = env

    def take(self, steps: int) -> Array:
        """The present as one row."""
        layout = layout_of(self.env.model, 0)
        physics, guess = np.empty(layout.physics_dim), np.empty(layout.guess_dim)
        mujoco.mj_getState(self.env.model, self.env.data, physics, PHYSICS)
        mujoco.mj_getState(self.env.model, self.env.data, guess, GUESS)
        return np.concatenate([physics, [steps], guess])

    def passing(self, steps: int) -> Array:
        """The present as one row, which can be gone back to, too."""
        return self.take(steps)

    def put(self, row: Array) -> int:
        """Go back to a row; answers its step count.

        Raises:
            ValueError: If the row has another length.
        """
        layout = layout_of(self.env.model, 0)
        if np.shape(row) != (layout.dim,):
            raise ValueError(f"state must have shape ({layout.dim},), got {np.shape(row)}")
        physics, _, steps, guess = layout.split(np.array(row, dtype=np.float64))
        mujoco.mj_setState(self.env.model, self.env.data, physics, PHYSICS)
        mujoco.mj_forward(self.env.model, self.env.data)
        mujoco.mj_setState(self.env.model, self.env.data, guess, GUESS)
        return int(steps[0])


class CopiedStates:
    """States of an environment that can only be copied whole: a row holds the number of a copy and the step count.

    What cannot be copied and is no part of a step (windows, surfaces of a drawing library) is shared by all copies.

    Args:
        env: Any environment; `GymEnv` tries out whether its copies go on as it does.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.env = env
        self._kept: OrderedDict[int, gymnasium.Env[Any, Any]] = OrderedDict()
        self._next = 0

    def take(self, steps: int) -> Array:
        """The present as one row; the oldest copy beyond `KEPT` is forgotten."""
        self._kept[self._next] = _copied(self.env)
        self._next += 1
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return np.array([self._next - 1, steps], dtype=np.float64)

    def passing(self, steps: int) -> Array:
        """A row of no copy."""
        return np.array([-1.0, steps])

    def put(self, row: Array) -> int:
        """Go back to a row; answers its step count.

        Raises:
            ValueError: If it is no row of this environment, or forgotten.
        """
        if np.shape(row) != (2,):
            raise ValueError(f"state must have shape (2,), got {np.shape(row)}")
        if int(row[0]) not in self._kept:
            raise ValueError(f"this state is no longer kept: only the last {KEPT} copies of the environment are")
        self.env = _copied(self._kept[int(row[0])])
        return int(row[1])


def states_of(env: Any) -> States:
    """Exact states where it is a MuJoCo environment of gymnasium without wrappers, copies elsewhere."""
    mine = env is env.unwrapped and isinstance(getattr(env, "model", None), mujoco.MjModel)
    exact = mine and all(hasattr(env, name) for name in ("data", "frame_skip", "_get_obs"))
    return MujocoStates(env) if exact else CopiedStates(env)


def _copied(env: Any) -> Any:
    """A deep copy that shares those attributes of each layer that refuse to be copied."""
    twin = copy.copy(env)
    memo: dict[int, Any] = {id(env): twin}
    for name, value in vars(env).items():
        if isinstance(value, gymnasium.Env):
            twin.__dict__[name] = _copied(value)
            continue
        try:
            twin.__dict__[name] = copy.deepcopy(value, memo)
        except TypeError:  # "cannot pickle ..."
            twin.__dict__[name] = value
    return twin
