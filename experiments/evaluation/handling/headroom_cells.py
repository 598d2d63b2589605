"""One episode of one agent on one task: a cell of the table, with a file of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from jepa_mpc.envs.labs import sample_lab
from jepa_mpc.envs.pick import PickEnv
from jepa_mpc.envs.pick_score import PickScore
from jepa_mpc.envs.ranges import Level
from jepa_mpc.envs.task import Task
from jepa_mpc.face.handling.handling_tasks import task_at
from jepa_mpc.face.handling.state_agents import AGENTS, Planning
from jepa_mpc.files import write_json
from jepa_mpc.plain_json import read_json_file
from jepa_mpc.seeding import generator, seed_of


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The settings of one episode.

    Args:
        task: A name of `headroom_tasks.TASKS`.
        agent: A name of `state_agents.AGENTS`.
        episode: Number of the episode, and of its lab.
        object: Kind of the object, or "mixed".
        split, level, lab_seed: Where the labs come from.
        horizon, num_samples, num_iterations: Planner settings; all 0 for agents that do not plan.
        seed: Seed of starts, goals and searches.
    """

    task: str
    agent: str
    episode: int
    object: str
    split: str
    level: Level
    lab_seed: int
    horizon: int
    num_samples: int
    num_iterations: int
    seed: int

    def path(self, folder: Path) -> Path:
        """The cell's file."""
        return folder / "episodes" / f"{self.task}-{self.agent.replace(' ', '_')}-{self.episode:03d}.json"


@dataclass(frozen=True, kw_only=True)
class Work:
    """A cell and the run folder."""

    cell: Cell
    folder: Path


def load(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """The saved result of a cell, or None if it was not played with these settings."""
    path = cell.path(folder)
    if not path.exists():
        return None
    found: dict[str, Any] = read_json_file(path)
    return found if found["cell"] == asdict(cell) else None


def work_one(work: Work) -> dict[str, Any]:
    """Play a cell and save its result."""
    torch.set_num_threads(1)
    outcome = play(work.cell)
    work.cell.path(work.folder).parent.mkdir(parents=True, exist_ok=True)
    write_json(work.cell.path(work.folder), outcome)
    return outcome


def play(cell: Cell) -> dict[str, Any]:
    """Play a cell: the same cell gives the same outcome, independent of other cells."""
    task = _task(cell.task, cell.object)
    lab = sample_lab(cell.episode, split=cell.split, seed=cell.lab_seed, level=cell.level)
    task.env.reset(seed=seed_of(cell.seed, "start", cell.task, cell.episode), options={"lab": lab})
    planning = Planning(horizon=cell.horizon, num_samples=cell.num_samples, num_iterations=cell.num_iterations)
    stream = generator(seed_of(cell.seed, "agent", cell.task, cell.episode), "agent")
    policy = AGENTS[cell.agent](task, planning, stream)
    began_s = time.process_time()
    facts = run_episode(task, policy)
    return {"cell": asdict(cell), "lab": lab.name, **facts, "cpu_s": time.process_time() - began_s}


def run_episode(task: Task, policy: Any, *, watch: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Run one episode and return its scores. `watch` is called before every step, and at the end."""
    env = task.env
    score = PickScore()
    place = False
    for _ in range(task.budget):
        watch()
        info: dict[str, Any] = {}
        if isinstance(env, PickEnv):
            shown, ends = env.sub_goal().name, env.ends_sub_goal()
            info = task.step(policy.act(env))
            if not info["terminated"]:
                score.see(env, shown, ends=ends)
        else:
            info = task.step(policy.act(env))
        if info["terminated"]:
            return {**_told(env, score), "place": False, "distance_m": None, "error": str(info["sim_error"])}
        place = bool(info["is_success"])
    watch()
    return {**_told(env, score), "place": place, "distance_m": info["distance_m"], "error": ""}


def _told(env: object, score: PickScore) -> dict[str, Any]:
    return {**score.to_dict(), "object": env.thing.kind} if isinstance(env, PickEnv) else {"object": "block"}


@lru_cache(maxsize=4)
def _task(name: str, kind: str) -> Task:
    return task_at(name, kind=kind)
