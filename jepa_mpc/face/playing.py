"""Environments, episodes and logs by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jepa_mpc import envs
from jepa_mpc.episode import PlayedEpisode, run_episode
from jepa_mpc.interfaces import Agent
from jepa_mpc.trajectories.formats import Log
from jepa_mpc.trajectories.formats import open_log as read_log


def make_env(name: str = "reach-v1", **settings: Any) -> Any:
    """A task by name: a gymnasium environment whose goal image can be planned to.

    Args:
        name: A name of `jepa_mpc.envs.ENVS`.
        **settings: Arguments of the task's class (`cameras`, `image_size`, `budget`, `split` ...).

    Raises:
        UnknownName: If there is no such task; lists what exists.
    """
    return envs.make(name, **settings)


def evaluate(env: Any, agent: Agent, *, seeds: Sequence[int] = range(10)) -> list[PlayedEpisode]:
    """Play one episode for each seed.

    Args:
        env: An environment of ours, or any that `run_episode` takes.
        agent: Is shown the goal of each episode, then its observations.
        seeds: Of the environment.
    """
    episodes = []
    for seed in seeds:
        env.reset(seed=seed)
        episodes.append(run_episode(env, agent))
    return episodes


def open_log(path: str | Path, *, format: str | None = None) -> Log:  # noqa: A002
    """The reader of a robot log of any format.

    Raises:
        BadEpisode: If it is unknown or damaged.
        UnknownName: If there is no such format.
        MissingPackage: If the format needs a package that is not installed.
    """
    return read_log(path, format=format)
