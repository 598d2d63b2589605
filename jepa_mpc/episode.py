"""The episode loop, from the goal to the last step."""

from __future__ import annotations

import time
from collections.abc import Callable
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


@dataclass(kw_only=True)
class PlayedEpisode:
    """The record of an episode, step by step.

    Args:
        actions: Executed actions, `(A,)` each.
        reached: Whether the goal was reached, before the first action and after each.
        distances: Distance to the goal in the environment's unit, at the same times; empty where it has none.
        logs: The agent's log of each step (its last search, its path, its estimates), or None.
        wall_ms: Wall-clock time per decision (ms).
        busy_ms: CPU time per decision (ms).
        broken: Whether the simulation diverged.
    """

    actions: list[NDArray[np.float32]] = field(default_factory=list)
    reached: list[bool] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    logs: list[StepLog | None] = field(default_factory=list)
    wall_ms: list[float] = field(default_factory=list)
    busy_ms: list[float] = field(default_factory=list)
    broken: bool = False

    @property
    def success(self) -> bool:
        """Whether the goal is reached at the end."""
        return not self.broken and self.reached[-1]


Watcher = Callable[[PlayedEpisode], None]


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
    played = PlayedEpisode()
    inner: EpisodeEnv = getattr(env, "unwrapped", env)
    agent.reset(inner.goal())
    _judge(inner, played)
    for _ in range(inner.budget if steps is None else steps):
        observation = inner.observation()
        clock, busy = time.perf_counter(), time.process_time()
        action = agent.act(observation)[0].cpu().numpy().astype(np.float32)
        played.busy_ms.append(1000 * (time.process_time() - busy))
        played.wall_ms.append(1000 * (time.perf_counter() - clock))
        played.actions.append(action)
        played.logs.append(keep(agent.last))
        if decided is not None:
            decided(played)
        _, _, played.broken, _, _ = env.step(action)
        _judge(inner, played)
        if moved is not None:
            moved(played)
        if played.broken:
            break
    return played


def _judge(env: EpisodeEnv, played: PlayedEpisode) -> None:
    """Record success and distance; nothing is recorded after a divergence."""
    played.reached.append(not played.broken and env.success())
    distance = getattr(env, "distance_m", None)
    if distance is not None:
        played.distances.append(float("nan") if played.broken else float(distance()))
