"""Logs of environments without labs, of gymnasium and our own: whatever they draw and observe while a policy acts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, Protocol

from jepa_mpc import envs
from jepa_mpc.envs.gym.goals import goal_of
from jepa_mpc.envs.gym.motions import HeldActions, UniformActions
from jepa_mpc.functions import function_of
from jepa_mpc.seeding import numpy_generator, seed_of
from jepa_mpc.trajectories.episode import Episode
from jepa_mpc.trajectories.motion import Motion
from jepa_mpc.trajectories.recording import record_episode

MOTIONS: Mapping[str, type[HeldActions] | type[UniformActions]] = {"held": HeldActions, "uniform": UniformActions}
LARGEST_SEED = 2**31


class GymCollection(Protocol):
    """What is recorded; the fields of `collect.py` of that name."""

    @property
    def task(self) -> str:
        """`gym:ID`, or a name of `envs.ENVS`."""

    @property
    def policy(self) -> str:
        """How it moves."""

    @property
    def episodes(self) -> int:
        """How many."""

    @property
    def steps(self) -> int:
        """Actions per episode."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras."""

    @property
    def image_size(self) -> int:
        """Width and height of the pictures (px)."""

    @property
    def seed(self) -> int:
        """Of starts and motion."""

    @property
    def env(self) -> Mapping[str, Any]:
        """Arguments of the environment."""

    @property
    def goal(self) -> Mapping[str, Any]:
        """Its goal, as plain values."""


def is_gym(task: str) -> bool:
    """Whether a task is an environment of gymnasium."""
    return task.startswith(envs.GYM)


def make_gym(task: str, goal: Mapping[str, Any], **settings: Any) -> Any:
    """An environment of gymnasium from plain values.

    Args:
        task: "gym:" and an id.
        goal: Entries of its goal (see `envs.gym.goals.goal_of`).
        **settings: Arguments of `GymEnv`.
    """
    return envs.make(task, goal=goal_of(task.removeprefix(envs.GYM), goal), **settings)


def record_gym(collection: GymCollection, index: int) -> Episode:
    """Record one episode; it ends where the environment ends it.

    Args:
        collection: What is recorded.
        index: Number of the episode.

    Raises:
        ValueError: If the environment draws or observes nothing, or the policy is unknown.
    """
    env = _environment(
        collection.task, json.dumps([dict(collection.goal), dict(collection.env)]), collection.cameras,
        collection.image_size, collection.steps,
    )  # fmt: skip
    if is_gym(collection.task) and not env.moment.observation.size:
        raise ValueError(
            f"{collection.task} observes pictures alone: a log needs numbers beside them; choose settings of it (env=) "
            "under which it observes its state"
        )
    return record_episode(
        env,
        motion_of(collection.policy, env),
        index=index,
        steps=collection.steps,
        seed=seed_of(collection.seed, "reset", index) % LARGEST_SEED,
        options={},
        metadata={"env": collection.task, "robot": getattr(env, "embodiment", collection.task), "lab_index": index},
        generator=numpy_generator(collection.seed, "motion", index),
        hand=False,
    )


def motion_of(policy: str, env: Any) -> Callable[[], Motion]:
    """What makes the motion of an episode.

    Args:
        policy: A name of `MOTIONS`, or the place of a function (`file.py:name`) that is given the environment and
            gives a `trajectories.motion.Motion`.
        env: The environment.

    Raises:
        ValueError: If there is no such policy.
    """
    if policy in MOTIONS:
        return partial(MOTIONS[policy], low=env.action_space.low, high=env.action_space.high)
    if ":" not in policy:
        raise ValueError(f"unknown policy {policy!r}; known: {', '.join(MOTIONS)}, file.py:function, module:function")
    return partial(function_of(policy), env)


@lru_cache(maxsize=1)
def _environment(task: str, told: str, cameras: tuple[str, ...], image_size: int, steps: int) -> Any:
    """The one environment of this process; goals are never looked at, so that none are sought."""
    goal, settings = json.loads(told)
    if "copies" in settings:
        raise ValueError("a process records one episode after another: workers= in place of copies= records several")
    if not is_gym(task):
        return envs.make(task, cameras=cameras, image_size=image_size, budget=steps, **settings)
    return make_gym(
        task,
        {"later": None, "photograph": None, **{name: goal[name] for name in ("repeat", "options") if name in goal}},
        cameras=cameras, image_size=image_size, budget=steps, **settings,
    )  # fmt: skip
