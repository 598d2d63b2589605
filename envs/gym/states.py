"""Saving and restoring states of a gymnasium environment: exact in MuJoCo, by copies elsewhere.

Independent of this package, since the child process of a bridge loads this file in another Python.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

KEPT = 64
"""Number of stored copies; older ones are dropped."""


class States(Protocol):
    """Saves and restores states of an environment."""

    env: gymnasium.Env[Any, Any]

    def take(self, steps: int) -> Array:
        """The current state as one row."""

    def passing(self, steps: int) -> Array:
        """The current state as a row that need not be restorable."""

    def put(self, row: Array) -> int:
        """Restore a row; returns its step count."""


class MujocoStates:
    """States of a MuJoCo environment: physics, step count and the solver's warm start, as in `envs.plant.StateLayout`.

    Args:
        env: The environment, without wrappers.
        whole: Store everything that MuJoCo integrates (mocap bodies, controls, applied forces) instead of the physics
            alone; for environments that move more than their actuators.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], *, whole: bool = False) -> None:
        import mujoco

        model_and_data = simulated(env)
        assert model_and_data is not None
        kinds = mujoco.mjtState
        self.env, self.whole, (self.model, self.data) = env, whole, model_and_data
        self._mujoco: Any = mujoco
        self._kinds = [kinds.mjSTATE_INTEGRATION if whole else kinds.mjSTATE_FULLPHYSICS, kinds.mjSTATE_WARMSTART]
        self._sizes = [mujoco.mj_stateSize(self.model, kind) for kind in self._kinds]

    def take(self, steps: int) -> Array:
        """The current state as one row."""
        physics, guess = map(np.empty, self._sizes)
        for kind, part in zip(self._kinds, (physics, guess), strict=True):
            self._mujoco.mj_getState(self.model, self.data, part, kind)
        return np.concatenate([physics, [steps], guess])

    def passing(self, steps: int) -> Array:
        """The current state as one row, which is restorable, too."""
        return self.take(steps)

    def put(self, row: Array) -> int:
        """Restore a row; returns its step count.

        Raises:
            ValueError: If the row has another length.
        """
        dim = sum(self._sizes) + 1
        if np.shape(row) != (dim,):
            raise ValueError(f"state must have shape ({dim},), got {np.shape(row)}")
        physics, steps, guess = np.split(np.array(row, dtype=np.float64), [self._sizes[0], self._sizes[0] + 1])
        self._mujoco.mj_setState(self.model, self.data, physics, self._kinds[0])
        self._mujoco.mj_forward(self.model, self.data)
        self._mujoco.mj_setState(self.model, self.data, guess, self._kinds[1])
        return int(steps[0])


class CopiedStates:
    """States of an environment that can only be copied: a row holds the index of a copy and the step count.

    Objects that cannot be copied and do not affect steps (windows, surfaces of a drawing library) are shared by all
    copies.

    Args:
        env: Any environment; `GymEnv` tests whether its copies behave identically.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.env = env
        self._kept: OrderedDict[int, gymnasium.Env[Any, Any]] = OrderedDict()
        self._next = 0

    def take(self, steps: int) -> Array:
        """The current state as one row; drops the oldest copy beyond `KEPT`."""
        self._kept[self._next] = _copied(self.env)
        self._next += 1
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return np.array([self._next - 1, steps], dtype=np.float64)

    def passing(self, steps: int) -> Array:
        """A row without a copy."""
        return np.array([-1.0, steps])

    def put(self, row: Array) -> int:
        """Restore a row; returns its step count.

        Raises:
            ValueError: If it is not a row of this environment, or is no longer stored.
        """
        if np.shape(row) != (2,):
            raise ValueError(f"state must have shape (2,), got {np.shape(row)}")
        if int(row[0]) not in self._kept:
            raise ValueError(f"this state is no longer stored: only the last {KEPT} copies of the environment are")
        self.env = _copied(self._kept[int(row[0])])
        return int(row[1])


def states_of(env: gymnasium.Env[Any, Any]) -> States:
    """The state storage of an environment.

    Physics for a MuJoCo environment of gymnasium without wrappers; everything that MuJoCo integrates for other
    packages; copies elsewhere.
    """
    if simulated(env) is None:
        return CopiedStates(env)
    return MujocoStates(env, whole=not plain_mujoco(env))


def plain_mujoco(env: Any) -> bool:
    """Whether it is a `MujocoEnv` of gymnasium without wrappers."""
    plain = env is env.unwrapped and simulated(env) is not None
    return plain and all(hasattr(env, name) for name in ("model", "frame_skip", "_get_obs"))


def simulated(env: gymnasium.Env[Any, Any]) -> tuple[Any, Any] | None:
    """MuJoCo's model and data, if an environment (or the one it wraps) exposes them."""
    inner: Any = env.unwrapped
    for owner in (inner, getattr(inner, "point_env", None), getattr(inner, "ant_env", None)):
        for model, data in (("model", "data"), ("_model", "_data")):
            if type(getattr(owner, model, None)).__name__ == "MjModel":
                return getattr(owner, model), getattr(owner, data)
    return None


def _copied(env: Any) -> Any:
    """A deep copy that shares those attributes of each layer that cannot be copied."""
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
