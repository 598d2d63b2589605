"""The episode loop, from the goal to the last step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.interfaces import Agent
from jepa_mpc.step_log import StepLog
from jepa_mpc.types import Observation


class EpisodeEnv(Protocol):
    """What an environment must offer to play an episode; call its `reset` first."""

    budget: int

    def observation(self) -> Observation:
        """Current camera frames and joints; a second call does not render again."""

    def goal(self) -> Observation:
        """The goal image of this episode."""

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Execute one action `(A,)`, as in gymnasium; `terminated` means that the simulation diverged."""

    def success(self) -> bool:
        """Whether the goal is currently reached."""


Outcome = tuple[Any, float, bool, bool, dict[str, Any]]
"""What `step` of gymnasium returns: observation, reward, terminated, truncated, info."""


class SideBySideEnv(Protocol):
    """What B worlds side by side offer so that one agent can be played in all of them; begin episodes with `reset`."""

    budget: int

    @property
    def playing(self) -> Sequence[EpisodeEnv]:
        """The worlds whose episodes are played."""

    def observation(self) -> Observation:
        """What the worlds show now, as one batch."""

    def goal(self) -> Observation:
        """The goal images, as one batch."""

    def step(self, actions: Sequence[NDArray[np.float32] | None]) -> Sequence[Outcome | None]:
        """Execute an action `(A,)` in each world; None leaves a world alone."""


@dataclass(kw_only=True)
class PlayedEpisode:
    """The record of an episode, step by step.

    Args:
        actions: Executed actions, `(A,)` each.
        reached: Whether the goal was reached, before the first action and after each.
        distances: Distance to the goal in the environment's unit, at the same times; empty where it has none.
        logs: The agent's log of each step (its last search, its path, its estimates), or None; with worlds side
            by side that of all of them.
        wall_ms: Wall-clock time per decision (ms); with worlds side by side that of their common decision.
        busy_ms: CPU time per decision (ms), likewise.
        broken: Whether the simulation diverged.
        ended: Whether the environment itself ended the episode: it stays in its last state.
    """

    actions: list[NDArray[np.float32]] = field(default_factory=list)
    reached: list[bool] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    logs: list[StepLog | None] = field(default_factory=list)
    wall_ms: list[float] = field(default_factory=list)
    busy_ms: list[float] = field(default_factory=list)
    broken: bool = False
    ended: bool = False

    @property
    def over(self) -> bool:
        """Whether no further action is played."""
        return self.broken or self.ended

    @property
    def success(self) -> bool:
        """Whether the goal is reached at the end."""
        return not self.broken and self.reached[-1]


Watcher = Callable[[PlayedEpisode], None]
Watchers = Callable[[Sequence[PlayedEpisode]], None]


def run_episode(
    env: EpisodeEnv,
    agent: Agent,
    *,
    steps: int | None = None,
    decided: Watcher | None = None,
    moved: Watcher | None = None,
    keep: Callable[[StepLog | None], StepLog | None] = lambda log: log,
) -> PlayedEpisode:
    """Play one episode from the environment's current state.

    Args:
        env: The environment, just reset; gymnasium wrappers around it are applied.
        agent: Receives the goal, then each observation.
        steps: Maximum number of actions; by default the environment's budget.
        decided: Called after each decision, before it is executed (a video that draws the plan).
        moved: Called after each action.
        keep: Selects what is kept of each step's log; by default all of it.
    """
    first = _of_first(decided), _of_first(moved)
    (played,) = run_episodes(Alone(env), agent, steps=steps, decided=first[0], moved=first[1], keep=keep)
    return played


def run_episodes(
    env: SideBySideEnv,
    agent: Agent,
    *,
    steps: int | None = None,
    decided: Watchers | None = None,
    moved: Watchers | None = None,
    keep: Callable[[StepLog | None], StepLog | None] = lambda log: log,
) -> list[PlayedEpisode]:
    """Play one episode in each of several worlds, with one decision of the agent per step for all of them.

    The episode of a world whose simulation diverges, or that has ended (`env.ended`), stops there; the others go on.

    Args:
        env: The worlds, just reset.
        agent: Is shown their goals as one batch, then their observations.
        steps: Actions at most; the worlds' own budget by default.
        decided: Called after each decision, before it is carried out, with all episodes.
        moved: Called after each action.
        keep: What is kept of each step's log; by default all of it.
    """
    episodes = [PlayedEpisode() for _ in env.playing]
    agent.reset(env.goal())
    for world, played in zip(env.playing, episodes, strict=True):
        _judge(world, played)
    for _ in range(env.budget if steps is None else steps):
        observation = env.observation()
        clock, busy = time.perf_counter(), time.process_time()
        actions = agent.act(observation).cpu().numpy().astype(np.float32)
        busy_ms, wall_ms = 1000 * (time.process_time() - busy), 1000 * (time.perf_counter() - clock)
        log = keep(agent.last)
        going = [None if played.over else action for played, action in zip(episodes, actions, strict=True)]
        for played, action in zip(episodes, going, strict=True):
            if action is not None:
                played.busy_ms.append(busy_ms)
                played.wall_ms.append(wall_ms)
                played.actions.append(action)
                played.logs.append(log)
        if decided is not None:
            decided(episodes)
        for world, played, outcome in zip(env.playing, episodes, env.step(going), strict=True):
            if outcome is not None:
                played.broken, played.ended = outcome[2], getattr(world, "ended", False)
                _judge(world, played)
        if moved is not None:
            moved(episodes)
        if all(played.over for played in episodes):
            break
    return episodes


class Alone:
    """One environment as the only one of a row; gymnasium's wrappers around it take part in its steps.

    Args:
        env: The environment.
    """

    def __init__(self, env: EpisodeEnv) -> None:
        inner: EpisodeEnv = getattr(env, "unwrapped", env)
        self.env, self.budget, self.playing = env, inner.budget, (inner,)
        self.observation, self.goal = inner.observation, inner.goal

    def step(self, actions: Sequence[NDArray[np.float32] | None]) -> Sequence[Outcome | None]:
        """Carry out its action `(A,)`."""
        return [None if action is None else self.env.step(action) for action in actions]


def _of_first(watcher: Watcher | None) -> Watchers | None:
    """A watcher of one episode as one of all."""
    return None if watcher is None else lambda episodes: watcher(episodes[0])


def _judge(env: EpisodeEnv, played: PlayedEpisode) -> None:
    """Record success and distance; nothing is recorded after a divergence."""
    played.reached.append(not played.broken and env.success())
    distance = getattr(env, "distance_m", None)
    if distance is not None:
        played.distances.append(float("nan") if played.broken else float(distance()))
