"""Saving and restoring states of a gymnasium environment: exact in MuJoCo, by copies elsewhere.

Independent of this package, since the child process of a bridge loads this file in another Python.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ROBOTS = ("point_env", "ant_env")
"""Attributes under which an environment may hold the one that it simulates."""

VIEWPOINT = frozenset({"distance", "azimuth", "elevation", "lookat"})
"""Fields of MuJoCo's free camera."""

KEPT = 64
"""Number of stored copies; older ones are dropped."""

LONGEST = 1024
"""Most numbers of an attribute that belongs to a state; larger ones are images and tables."""


class States(Protocol):
    """Saves and restores states of an environment."""

    env: gymnasium.Env[Any, Any]

    def take(self, steps: int) -> Array:
        """The current state as one row."""

    def passing(self, steps: int) -> Array:
        """The current state as a row that need not be restorable."""

    def put(self, row: Array) -> int:
        """Restore a row; returns its step count."""


class Numbers:
    """The numbers among the attributes of an object as one row: counters, targets, the last observation.

    Those that an object has now are kept, up to `LONGEST` numbers each. Arrays that are views of a simulator's memory
    belong to the simulator.

    Args:
        owner: The object.
    """

    def __init__(self, owner: object) -> None:
        self.owner = owner
        self._sizes = {name: np.size(value) for name, value in vars(owner).items() if _is_numbers(value)}

    @property
    def dim(self) -> int:
        """Width of a row."""
        return sum(self._sizes.values())

    def take(self) -> Array:
        """The current row `(dim,)`; zeros where an attribute has no longer numbers of that size."""
        row = np.zeros(self.dim)
        for name, part in self._pairs(row):
            part[:] = np.ravel(getattr(self.owner, name))
        return row

    def put(self, row: Array) -> None:
        """Restore a row."""
        for name, part in self._pairs(row):
            value = getattr(self.owner, name)
            if isinstance(value, np.ndarray):
                setattr(self.owner, name, part.reshape(value.shape).astype(value.dtype))
            else:
                setattr(self.owner, name, type(value)(part[0]))

    def _pairs(self, row: Array) -> Iterator[tuple[str, Array]]:
        """Each attribute that still has numbers of its size, with its part of a row."""
        begin = 0
        for name, size in self._sizes.items():
            begin, part = begin + size, row[begin : begin + size]
            value: Any = getattr(self.owner, name, None)
            if _is_numbers(value) and np.size(value) == size:
                yield name, part


def _is_numbers(value: Any) -> bool:
    """Whether a value is a number, or an array of a few numbers in memory of its own."""
    if not isinstance(value, np.ndarray):
        return isinstance(value, bool | int | float | np.number | np.bool_)
    memory: Any = value
    while isinstance(memory.base, np.ndarray):
        memory = memory.base
    return value.dtype.kind in "biuf" and value.size <= LONGEST and memory.base is None


class MujocoStates:
    """States of a MuJoCo environment: physics, step count and the solver's warm start, as in `envs.plant.StateLayout`.

    Args:
        env: The environment, without wrappers.
        whole: Store everything that MuJoCo integrates (mocap bodies, controls, applied forces) instead of the physics
            alone, and the environment's own numbers; for environments that move more than their actuators.
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
        self._numbers = [Numbers(env.unwrapped)] if whole else []

    def take(self, steps: int) -> Array:
        """The current state as one row."""
        physics, guess = map(np.empty, self._sizes)
        for kind, part in zip(self._kinds, (physics, guess), strict=True):
            self._mujoco.mj_getState(self.model, self.data, part, kind)
        return np.concatenate([physics, [steps], guess, *(numbers.take() for numbers in self._numbers)])

    def passing(self, steps: int) -> Array:
        """The current state as one row, which is restorable, too."""
        return self.take(steps)

    def put(self, row: Array) -> int:
        """Restore a row; returns its step count.

        Raises:
            ValueError: If the row has another length.
        """
        first, end = self._sizes[0], sum(self._sizes) + 1
        dim = end + sum(numbers.dim for numbers in self._numbers)
        if np.shape(row) != (dim,):
            raise ValueError(f"state must have shape ({dim},), got {np.shape(row)}")
        physics, steps, guess, own = np.split(np.array(row, dtype=np.float64), [first, first + 1, end])
        for numbers in self._numbers:
            numbers.put(own)
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


def states_of(env: gymnasium.Env[Any, Any], *, whole: bool = False) -> States:
    """The state storage of an environment.

    Physics for a MuJoCo environment of gymnasium without wrappers, unless the whole state is asked for; everything that
    MuJoCo integrates for other packages; copies elsewhere.
    """
    if simulated(env) is None:
        return CopiedStates(env)
    return MujocoStates(env, whole=whole or not plain_mujoco(env))


def plain_mujoco(env: Any) -> bool:
    """Whether it is a `MujocoEnv` of gymnasium without wrappers."""
    plain = env is env.unwrapped and simulated(env) is not None
    return plain and all(hasattr(env, name) for name in ("model", "frame_skip", "_get_obs"))


def simulated(env: gymnasium.Env[Any, Any]) -> tuple[Any, Any] | None:
    """MuJoCo's model and data, if an environment (or the one it wraps) exposes them."""
    inner: Any = env.unwrapped
    for owner in (inner, *(getattr(inner, name, None) for name in ROBOTS)):
        for model, data in (("model", "data"), ("_model", "_data")):
            if type(getattr(owner, model, None)).__name__ == "MjModel":
                return getattr(owner, model), getattr(owner, data)
    return None


def seeded_reset(env: gymnasium.Env[Any, Any], *, seed: int | None, options: dict[str, Any] | None) -> tuple[Any, Any]:
    """Reset an environment whose random numbers depend on the seed alone, although some ignore that of a reset.

    An environment with a random stream of its own kind is left to its reset.
    """
    if seed is not None and type(env.unwrapped).np_random is gymnasium.Env.np_random:
        env.unwrapped.np_random = gymnasium.utils.seeding.np_random(seed)[0]
    return env.reset(seed=seed, options=options)


def unshadow(env: gymnasium.Env[Any, Any]) -> None:
    """Leave out what takes most of the time of a MuJoCo image without a GPU: shadows, mirrors and multisampling.

    Multisampling is chosen with the first image, so that this has to come before it.

    Raises:
        ValueError: If it does not expose MuJoCo's model.
    """
    model_and_data = simulated(env)
    if model_and_data is None:
        raise ValueError("shadows=False is for MuJoCo environments; this one does not expose MuJoCo's model")
    model = model_and_data[0]
    model.light_castshadow[:] = 0
    model.mat_reflectance[:] = 0
    model.vis.quality.offsamples = 0


def aim(env: gymnasium.Env[Any, Any], viewpoint: Mapping[str, Any]) -> None:
    """Show the images of a MuJoCo environment of gymnasium's own renderer from another place; before the first image.

    Args:
        env: The environment.
        viewpoint: Fields of MuJoCo's free camera: `distance` (m), `azimuth`, `elevation` (degrees), `lookat` (m, `3`).

    Raises:
        ValueError: If there is no such renderer, or a field is unknown.
    """
    unknown = set(viewpoint) - VIEWPOINT
    if unknown:
        raise ValueError(f"viewpoint takes {', '.join(sorted(VIEWPOINT))}, got {', '.join(sorted(unknown))}")
    inner: Any = env.unwrapped
    owners = (inner, *(getattr(inner, name, None) for name in ROBOTS))
    renderers = [one for owner in owners if (one := getattr(owner, "mujoco_renderer", None)) is not None]
    if not renderers:
        raise ValueError("viewpoint= is for environments that draw by gymnasium's MuJoCo renderer; this one does not")
    for renderer in renderers:
        renderer.default_cam_config, renderer.camera_id = dict(viewpoint), -1


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
