"""Environments, episodes and logs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jepa_mpc import envs
from jepa_mpc.episode import PlayedEpisode, run_episode, run_episodes
from jepa_mpc.face.viewing import open_view
from jepa_mpc.interfaces import Agent
from jepa_mpc.trajectories.formats import Log
from jepa_mpc.trajectories.formats import open_log as read_log


def make_env(name: str = "reach-v1", **settings: Any) -> Any:
    """Make a task by name: a gymnasium environment with a goal image.

    Args:
        name: A name of `jepa_mpc.envs.ENVS`.
        **settings: Arguments of the task's class (`cameras`, `image_size`, `budget`, `split` ...).

    Raises:
        UnknownName: If there is no such task; lists the known ones.
    """
    return envs.make(name, **settings)


def evaluate(
    env: Any, agent: Agent, *, seeds: Sequence[int] = range(10), view: str | Path | None = None
) -> list[PlayedEpisode]:
    """Play one episode per seed.

    Args:
        env: An environment of ours, any that `run_episode` accepts, or copies side by side
            (`envs.gym.vector.GymVector`): as many episodes as there are copies are played at once, with one decision of
            the agent per step.
        agent: Receives the goal of each episode, then its observations.
        seeds: Seeds of the environment.
        view: Path of a Rerun recording (`.rrd`) of all episodes; none by default.

    Raises:
        MissingPackage: If a recording is requested and rerun-sdk is not installed.
        ValueError: If a recording is requested of episodes that are played at once, or `env` is a vector environment
            without an adapter.
    """
    episodes: list[PlayedEpisode] = []
    if hasattr(env, "num_envs"):
        raise ValueError("a vector environment of gymnasium has no goal yet: evaluate GymVector(env, goal=...)")
    if hasattr(env, "copies"):
        if view is not None:
            raise ValueError("a recording shows one episode after another: leave view= or copies= out")
        for start in range(0, len(seeds), len(env.copies)):
            env.reset(seed=seeds[start : start + len(env.copies)])
            episodes += run_episodes(env, agent)
        return episodes
    inner = getattr(env, "unwrapped", env)
    with open_view(view) as shown:
        for seed in seeds:
            env.reset(seed=seed)
            if shown is None:
                episodes.append(run_episode(env, agent))
                continue
            shown.begin(agent, inner.goal())
            episodes.append(run_episode(env, agent, decided=partial(shown.decided, inner)))
    return episodes


def open_log(path: str | Path, *, format: str | None = None) -> Log:  # noqa: A002
    """Open a robot log of any format.

    Raises:
        BadEpisode: If the format is not recognised or the log is damaged.
        UnknownName: If there is no such format.
        MissingPackage: If the format needs a package that is not installed.
    """
    return read_log(path, format=format)
