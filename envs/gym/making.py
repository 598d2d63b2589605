"""Checks of a gymnasium environment before it is adapted: known id, bounded actions, time limit."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from jepa_mpc.envs.gym.bridge.near_side import BridgedEnv, BridgedStates
from jepa_mpc.envs.gym.lanes import Lane, SharedStates
from jepa_mpc.envs.gym.states import Array, States, states_of
from jepa_mpc.envs.gym.versions import version_advice
from jepa_mpc.errors import UnknownName
from jepa_mpc.types import ActionBox


def made(
    name: str,
    settings: dict[str, Any],
    *,
    python: str | Path | None = None,
    shadows: bool = True,
    viewpoint: Mapping[str, Any] | None = None,
) -> gymnasium.Env[Any, Any]:
    """Make the environment of an id, in another Python if one is given.

    Args:
        name: The id.
        settings: Arguments of `gymnasium.make`.
        python: The other Python.
        shadows: Whether there its images have shadows.
        viewpoint: Where they are seen from there (see `envs.gym.states.aim`).

    Raises:
        UnknownName: If there is no such id; lists similar ones.
        ValueError: If gymnasium cannot make it.
        BrokenBridge: If the other Python cannot make it.
    """
    if python is not None:
        return BridgedEnv(name, python=python, shadows=shadows, viewpoint=viewpoint, **settings)
    try:
        return gymnasium.make(name, **settings)
    except (gymnasium.error.UnregisteredEnv, gymnasium.error.DeprecatedEnv) as error:
        alike = difflib.get_close_matches(name, gymnasium.registry, n=5, cutoff=0.4)
        raise UnknownName("environment of gymnasium", name, alike or gymnasium.registry) from error
    except (gymnasium.error.Error, AttributeError, ImportError, TypeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"gymnasium cannot make {name}: {said}{version_advice(name)}") from error


def name_of(env: Any) -> str:
    """Its id, or the name of its class.

    Raises:
        ValueError: If it is not an environment, or a vector of environments.
    """
    if isinstance(env, gymnasium.vector.VectorEnv):
        raise ValueError("a vector of environments is adapted by GymVector(env): make a single one, or use that")
    if not isinstance(env, gymnasium.Env):
        raise ValueError(f"expected an id of gymnasium or an environment, got a {type(env).__name__}")
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def kept(env: gymnasium.Env[Any, Any]) -> States:
    """Saves and restores its states, without the wrappers of `gymnasium.make`."""
    from gymnasium import wrappers

    while isinstance(env, wrappers.TimeLimit | wrappers.OrderEnforcing | wrappers.PassiveEnvChecker):
        env = env.env
    if isinstance(env, Lane):
        return SharedStates(env)
    return BridgedStates(env) if isinstance(env, BridgedEnv) else states_of(env)


def box_of(env: Any, name: str) -> ActionBox:
    """Bounds of its actions.

    Raises:
        ValueError: If its action space is not a finite box.
    """
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"{name} takes actions of {space}: a planner needs a box of numbers (A,)")
    if not np.isfinite([space.low, space.high]).all():
        raise ValueError(
            f"the actions of {name} have no bounds: wrap it in gymnasium.wrappers.ClipAction or RescaleAction"
        )
    return ActionBox(low=torch.from_numpy(space.low.copy()).float(), high=torch.from_numpy(space.high.copy()).float())


def budget_of(env: Any, name: str, repeat: int) -> int:
    """Actions per episode, from its own time limit.

    Raises:
        ValueError: If it has none.
    """
    limit = None if env.spec is None else env.spec.max_episode_steps
    if limit is None:
        raise ValueError(f"{name} has no time limit: pass budget=, the actions per episode")
    return -(-int(limit) // repeat)


def flat(env: gymnasium.Env[Any, Any], observation: Any) -> Array:
    """An observation as one row of float64; images are excluded."""
    space = env.observation_space
    if isinstance(space, gymnasium.spaces.Box):
        return np.zeros(0) if len(space.shape) == 3 else np.array(observation, dtype=np.float64).ravel()
    return np.asarray(gymnasium.spaces.flatten(space, observation), dtype=np.float64)
