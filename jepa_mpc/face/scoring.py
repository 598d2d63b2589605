"""Evaluation in any environment: a trained world model against true dynamics, random actions and standing still."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jepa_mpc import envs
from jepa_mpc.envs.baselines import DoNothing, Policy, PolicyAgent, RandomActions, SideBySideAgent
from jepa_mpc.envs.gym.adapter import GymEnv
from jepa_mpc.envs.true_dynamics import true_dynamics
from jepa_mpc.episode import Alone, PlayedEpisode, run_episodes
from jepa_mpc.errors import choose
from jepa_mpc.face.agents import planning_agent, true_dynamics_agent
from jepa_mpc.face.collection.gym_recording import LARGEST_SEED, is_gym, make_gym, motion_of
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.interfaces import Agent
from jepa_mpc.reporting.drawing import panels
from jepa_mpc.reporting.intervals import wilson
from jepa_mpc.reporting.video import VideoWriter
from jepa_mpc.seeding import generator, numpy_generator, seed_of
from jepa_mpc.trajectories.motion import Motion
from jepa_mpc.world_model.checkpoints.loader import load_world_model
from jepa_mpc.world_model.dynamics.model import WorldModel

WORLD_MODEL, TRUE, POLICY, RANDOM, NOTHING = "world model", "true dynamics", "policy", "random", "do nothing"
PANEL = 192


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Methods, environment and goals of an evaluation; episode i starts the same for every method.

    Args:
        task: As `jepa_mpc.make_env` takes it.
        checkpoint: The world model (see `jepa_mpc.load_world_model`), or None.
        settings: Planner settings for the world model and the true dynamics.
        horizon: Planning horizon, replacing that of `settings`; None uses the environment's recommendation.
        seed: Seed of starts, goals and searches.
        goal: Goal entries for a gymnasium environment (see `envs.gym.goals.goal_of`).
        env: Further arguments of the environment.
        policy: A further policy to evaluate (see `motion_of`), or None.
        device: Device of the networks.
        copies: Copies of a gymnasium environment that are played side by side.
        context: Frames that the world model sees before it predicts, 1 or 2: two show how fast things move.
    """

    task: str
    checkpoint: str | None
    settings: PlanSettings
    horizon: int | None = None
    seed: int = 0
    goal: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, Any] = field(default_factory=dict)
    policy: str | None = None
    device: str = "cpu"
    copies: int = 1
    context: int = 1

    @cached_property
    def model(self) -> WorldModel | None:
        """The world model."""
        return (
            None
            if self.checkpoint is None
            else load_world_model(self.checkpoint, context=self.context, device=self.device)
        )

    @cached_property
    def environment(self) -> Any:
        """The environment or its copies, with the cameras of the world model."""
        sees = None if self.model is None else self.model.interface
        seen: dict[str, Any] = {"cameras": ()} if sees is None else {
            "cameras": sees.cameras, "image_size": sees.image_size
        }  # fmt: skip
        if "copies" in self.env:
            raise ValueError("copies= is an option of its own and no entry of env=")
        if is_gym(self.task):
            side_by_side = {} if self.copies == 1 else {"copies": self.copies}
            return make_gym(self.task, self.goal, **{**seen, **self.env, **side_by_side})
        if self.goal or self.copies > 1:
            raise ValueError("goal= and copies= are for environments of gymnasium: task=gym:ID")
        return envs.make(self.task, **{**seen, **self.env})

    @property
    def worlds(self) -> Sequence[Any]:
        """The environments that are played at once."""
        return list(self.environment.copies) if self.copies > 1 else [self.environment]

    def methods(self) -> Mapping[str, Callable[[Sequence[int]], Agent]]:
        """Agent factories by method name; each takes the seeds of the episodes that are played at once."""
        env = self.environment
        settings = replace(self.settings, horizon=env.horizon if self.horizon is None else self.horizon)

        def alone(policy: Callable[[Any, int], Policy]) -> Callable[[Sequence[int]], Agent]:
            return lambda seeds: SideBySideAgent(
                [PolicyAgent(policy(one, seed), one) for one, seed in zip(self.worlds, seeds, strict=False)]
            )

        known: dict[str, Callable[[Sequence[int]], Agent]] = {
            TRUE: lambda seeds: true_dynamics_agent(
                env, settings, seed=self._streams(seeds), dynamics=true_dynamics(env), cost=env.cost()
            ),
            RANDOM: alone(lambda env, seed: RandomActions(generator(seed, "random policy"))),
            NOTHING: alone(lambda env, seed: DoNothing()),
        }
        model, policy = self.model, self.policy
        if policy is not None:
            known = {POLICY: alone(lambda env, seed: _Moved(motion_of(policy, env)(), seed)), **known}
        if model is None:
            return known
        return {WORLD_MODEL: lambda seeds: planning_agent(model, env, settings, seed=self._streams(seeds)), **known}

    def agent(self, method: str, *seeds: int) -> Agent:
        """The agent of a method for the episodes of some seeds.

        Raises:
            UnknownName: If there is no such method.
            ValueError: If true dynamics are requested and not available.
        """
        return choose(self.methods(), method, "method")(seeds)

    def _streams(self, seeds: Sequence[int]) -> int | Sequence[int]:
        """The planner's seed: one per world where worlds are played side by side."""
        return seeds if self.copies > 1 else seeds[0]

    def play(self, method: str, episodes: Sequence[int], films: Sequence[Path | None]) -> list[dict[str, Any]]:
        """Play some episodes at once; returns their results as plain values.

        Args:
            method: A name of `methods()`.
            episodes: Their indices, at most `copies`.
            films: Path of the video of each, or None.

        Raises:
            UnknownName: If there is no such method.
        """
        seeds = [seed_of(self.seed, "episode", episode) % LARGEST_SEED for episode in episodes]
        env, worlds = self.environment, self.worlds[: len(episodes)]
        env.reset(seed=self._streams(seeds))
        with ExitStack() as stack:
            watches = [stack.enter_context(filmed(film, one)) for film, one in zip(films, worlds, strict=True)]

            def watch(all_played: Sequence[PlayedEpisode]) -> None:
                for shown, played in zip(watches, all_played, strict=True):
                    if shown is not None and not played.broken:
                        shown(played)

            all_played = run_episodes(
                env if self.copies > 1 else Alone(env),
                self.agent(method, *seeds),
                decided=watch,
                keep=lambda log: None,
            )
        return [
            {
                "method": method,
                "episode": episode,
                "seed": seed,
                "success": played.success,
                "reached": any(played.reached),
                "steps": len(played.actions),
                "return": None if not hasattr(one, "moment") else one.moment.total,
                "distances_m": played.distances,
                "gap": one.episode_goal.gap() if isinstance(one, GymEnv) else None,
                "broken": played.broken,
                "ms_per_decision": statistics.fmean(played.wall_ms) if played.wall_ms else 0.0,
                "film": None if film is None else film.name,
            }
            for episode, seed, one, played, film in zip(episodes, seeds, worlds, all_played, films, strict=True)
        ]

    def close(self) -> None:
        """Close the environment."""
        self.environment.close()


class _Moved:
    """A log's motion as a policy; it gets the numeric entries of the observation."""

    def __init__(self, motion: Motion, seed: int) -> None:
        self.motion, self.generator, self.begun = motion, numpy_generator(seed, "motion"), False

    def act(self, env: Any) -> np.ndarray:
        """The next action `(A,)`."""
        felt = env.observation().proprio[0, -1].numpy()
        if not self.begun:
            self.motion.start(felt, self.generator)
            self.begun = True
        return np.asarray(self.motion(felt, self.generator), dtype=np.float32)


@contextmanager
def filmed(path: Path | None, env: Any) -> Iterator[Callable[[PlayedEpisode], None] | None]:
    """A video of the camera beside the goal image, with a frame per decision and one for the end."""
    if path is None:
        yield None
        return
    goal = _picture(env.goal().frames[0, 0])

    def shown(played: PlayedEpisode) -> None:
        reached = "reached" if played.reached[-1] else f"step {len(played.reached) - 1}"
        writer.write(panels([(reached, _picture(env.observation().frames[0, 0])), ("goal", goal)], height=PANEL))

    with VideoWriter(path, max(2.0, min(1 / env.dt_s, 25.0))) as writer:
        last: list[PlayedEpisode] = []

        def watch(played: PlayedEpisode) -> None:
            last[:] = [played]
            shown(played)

        yield watch
        if last:
            shown(last[0])


def _picture(frames: Any) -> np.ndarray:
    """The first camera's image `(h, w, 3)` of stacked frames `(C, h, w)`."""
    return np.ascontiguousarray(frames[:3].numpy().transpose(1, 2, 0))


def summary(episodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Success rates of one method's episodes, with Wilson's 95 % interval."""
    count, hits = len(episodes), sum(bool(one["success"]) for one in episodes)
    returns = [one["return"] for one in episodes if one["return"] is not None]
    return {
        "episodes": count,
        "successes": hits,
        "success": hits / count,
        "wilson_95": wilson(hits, count),
        "reached": sum(bool(one["reached"]) for one in episodes) / count,
        "broken": sum(bool(one["broken"]) for one in episodes),
        "mean_return": statistics.fmean(returns) if returns else None,
        "ms_per_decision": statistics.median(one["ms_per_decision"] for one in episodes),
    }


def markdown(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Summaries by method as a Markdown table."""
    lines = ["| method | n | success | 95 % | reached at any step | ms per decision |", "|" + "---|" * 6]
    for name, row in rows.items():
        low, high = (100 * end for end in row["wilson_95"])
        lines.append(
            f"| {name} | {row['episodes']} | {100 * row['success']:.0f} % | {low:.0f}–{high:.0f} % | "
            f"{100 * row['reached']:.0f} % | {row['ms_per_decision']:.0f} |"
        )
    return "\n".join(lines) + "\n"
