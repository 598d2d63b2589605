"""Playing cells: one after another, or in processes of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc import envs
from jepa_mpc.envs.task import Task
from jepa_mpc.experiments.benchmarking.budgets import build
from jepa_mpc.experiments.benchmarking.cells import LEARNED, Cell, Outcome
from jepa_mpc.experiments.benchmarking.meter import Metered, Reading
from jepa_mpc.experiments.processes import in_processes
from jepa_mpc.experiments.reaching.methods import world_model_at
from jepa_mpc.experiments.reaching.players import ModelPlayer, PlanSettings
from jepa_mpc.interfaces import Planner
from jepa_mpc.seeding import generator, seed_of
from jepa_mpc.types import Goal, MpcSettings, Rollout
from jepa_mpc.world_model.agents.planning import Agent
from jepa_mpc.world_model.memory.window import ShortTermMemory


@dataclass(frozen=True, kw_only=True)
class Work:
    """A cell and what it needs that does not change its result.

    Args:
        cell: The cell.
        folder: The run folder.
        checkpoint: The learned world model, if the cell plans in one.
        commit: Commit of the code, to be written down.
    """

    cell: Cell
    folder: Path
    checkpoint: Path | None = None
    commit: str = ""


class Player(Protocol):
    """Decides what to do."""

    def act(self) -> NDArray[np.float32]:
        """The next action `(A,)`."""


def work_off(works: Sequence[Work], *, workers: int) -> Iterator[Outcome]:
    """Play cells and save each as soon as it is done; with one worker in this process."""
    return in_processes(work_one, works, workers=workers)


def work_one(work: Work) -> Outcome:
    """Play one cell and save it."""
    torch.set_num_threads(1)
    outcome = play(work.cell, work.checkpoint, commit=work.commit)
    outcome.save(work.folder)
    return outcome


def play(cell: Cell, checkpoint: Path | None = None, *, commit: str = "") -> Outcome:
    """Play one cell: the same cell gives the same course and cost, whatever was played before."""
    task = task_at(cell.task, checkpoint if cell.dynamics == LEARNED else None)
    task.reset(seed=seed_of(cell.start_seed, "start", cell.start))
    goal, solved = task.goal(), task.success()
    player, readings = player_of(cell, task, checkpoint)
    sensors, actions, reached, broken = [], [], [], False
    for _ in range(cell.steps):
        actions.append(player.act())
        broken = bool(task.step(actions[-1])["terminated"])
        if broken:
            break
        sensors.append(task.env.plant_sensors())
        reached.append(task.success())
    return Outcome(
        cell=cell,
        cost=float("inf") if broken else course_cost(task, np.array(sensors), np.array(actions), goal=goal),
        success=not broken and reached[-1],
        ever=solved or any(reached),
        solved_at_start=solved,
        evaluations=tuple(reading.evaluations for reading in readings),
        wall_s=tuple(reading.wall_s for reading in readings),
        cpu_s=tuple(reading.cpu_s for reading in readings),
        statuses=dict(Counter(reading.status for reading in readings)),
        believed=readings[0].believed if readings else None,
        curve=tuple(readings[0].curve) if readings else (),
        commit=commit,
    )


def course_cost(task: Task, sensors: NDArray[np.float64], actions: NDArray[np.float32], *, goal: Goal) -> float:
    """The task's own cost of a course: sensors `(T, Q)` after each of the actions `(T, A)`."""
    taken = torch.from_numpy(sensors)[None, None]
    rollout = Rollout(latents=torch.zeros(1, 1, len(sensors), 1, 1, dtype=torch.float64), sensors=taken)
    return float(task.cost(rollout, torch.from_numpy(actions)[None, None], goal)[0, 0])


@lru_cache(maxsize=4)
def task_at(name: str, checkpoint: Path | None, cameras: tuple[str, ...] = (), image_size: int = 64) -> Task:
    """A task of this process; with the cameras that a learned world model was trained with, if one is named."""
    if checkpoint is not None:
        known = world_model_at(checkpoint, "cpu").interface
        cameras, image_size = known.cameras, known.image_size
    return envs.make_task(name, cameras=cameras, image_size=image_size)


def player_of(cell: Cell, task: Task, checkpoint: Path | None) -> tuple[Player, list[Reading]]:
    """Who plays a cell, at the start of its episode, and the list that its searches will be written to."""
    stream = seed_of(cell.seed, "search", cell.task, cell.start)
    if cell.baseline:
        return _Following(task, cell.kind, stream), []
    if cell.dynamics == LEARNED:
        assert checkpoint is not None
        learned = learned_player(cell, task, checkpoint, stream)
        return _Learned(learned, task), learned.agent.planner.readings  # type: ignore[attr-defined]
    meter = Metered(build(cell.kind, cell.arguments))
    return Simulating(task, meter, horizon=cell.horizon, execute=cell.execute, stream=stream), meter.readings


def learned_player(cell: Cell, task: Task, checkpoint: Path, stream: int) -> ModelPlayer:
    """The agent of the reaching experiment, with a meter on its planner."""
    settings = PlanSettings(planner=cell.kind, arguments=cell.arguments, horizon=cell.horizon, effort=cell.effort)
    player = ModelPlayer(world_model_at(checkpoint, "cpu"), task.env, settings, seed=stream)  # type: ignore[arg-type]
    player.agent.planner = Metered(player.agent.planner)
    player.agent.settings = replace(player.agent.settings, execute=cell.execute)
    player.begin(task.env)  # type: ignore[arg-type]
    return player


class Simulating:
    """An agent whose world is the task's own simulator.

    Args:
        task: The task, at the start of an episode.
        planner: Searches for plans.
        horizon: Steps that a plan looks ahead.
        execute: Actions of a plan that are carried out.
        stream: Seed of the search.
    """

    def __init__(self, task: Task, planner: Planner, *, horizon: int, execute: int, stream: int) -> None:
        self.task = task
        self.agent = Agent(
            perception=task.perception,
            memory=ShortTermMemory(max_frames=1, action_dim=task.box.dim),
            dynamics=task.dynamics,
            cost=task.cost,
            planner=planner,
            box=task.box,
            settings=MpcSettings(horizon=horizon, execute=execute),
            generator=generator(stream, "planner"),
        )
        self.agent.reset(task.env.observation(), sensors=task.goal().sensors)

    def act(self) -> NDArray[np.float32]:
        """Plan where it is due, answer `(A,)`."""
        return self.agent.act(self.task.env.observation())[0].numpy().astype(np.float32)


class _Learned:
    """The agent with a learned world model: it is given images and nothing else."""

    def __init__(self, player: ModelPlayer, task: Task) -> None:
        self.player, self.task = player, task

    def act(self) -> NDArray[np.float32]:
        return self.player.act(self.task.env)  # type: ignore[arg-type]


class _Following:
    """A baseline that plans nothing."""

    def __init__(self, task: Task, name: str, stream: int) -> None:
        self.task = task
        self.policy = task.baselines[name](generator(stream, "policy"))

    def act(self) -> NDArray[np.float32]:
        return self.policy.act(self.task.env)  # type: ignore[arg-type]
