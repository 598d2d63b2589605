"""Playing cells: one after another, or in processes of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc import envs
from jepa_mpc.envs.baselines import PolicyAgent
from jepa_mpc.envs.task import Task
from jepa_mpc.envs.true_dynamics import SIMULATOR
from jepa_mpc.episode import run_episode
from jepa_mpc.experiments.evaluation.planners.cells import LEARNED, Cell, Outcome
from jepa_mpc.face.agents import planning_agent, true_dynamics_agent
from jepa_mpc.face.evaluation.methods import world_model_at
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.interfaces import Agent
from jepa_mpc.planners.meter import Metered, Reading
from jepa_mpc.runs.worker_pool import in_processes
from jepa_mpc.seeding import generator, seed_of
from jepa_mpc.types import Goal, Rollout


@dataclass(frozen=True, kw_only=True)
class Work:
    """A cell and inputs that do not change its result.

    Args:
        cell: The cell.
        folder: The run folder.
        checkpoint: The learned world model, if the cell plans in one.
        commit: Commit of the code, to be recorded.
        code: Its fingerprint, likewise.
    """

    cell: Cell
    folder: Path
    checkpoint: Path | None = None
    commit: str = ""
    code: str = ""


def work_off(works: Sequence[Work], *, workers: int) -> Iterator[Outcome]:
    """Play cells and save each as soon as it is finished; with one worker in this process."""
    return in_processes(work_one, works, workers=workers)


def work_one(work: Work) -> Outcome:
    """Play one cell and save it."""
    torch.set_num_threads(1)
    outcome = replace(play(work.cell, work.checkpoint), commit=work.commit, code=work.code)
    outcome.save(work.folder)
    return outcome


def play(cell: Cell, checkpoint: Path | None = None) -> Outcome:
    """Play one cell: the same cell gives the same trajectory and cost, independent of other cells."""
    task = task_at(
        cell.task, checkpoint if cell.dynamics == LEARNED else None, dynamics=cell.dynamics, robot=cell.robot
    )
    task.reset(seed=seed_of(cell.start_seed, "start", cell.start))
    goal = task.goal()
    agent, readings = agent_of(cell, task, checkpoint)
    sensors: list[NDArray[np.float64]] = []
    played = run_episode(task.env, agent, steps=cell.steps, moved=lambda _: sensors.append(task.env.plant_sensors()))
    actions = np.array(played.actions)
    if played.ended:  # what it lost by ending early counts, too
        still = np.zeros((cell.steps - len(actions), *actions.shape[1:]), dtype=actions.dtype)
        for action in still:
            task.env.step(action)
            sensors.append(task.env.plant_sensors())
        actions = np.concatenate([actions, still])
    return Outcome(
        cell=cell,
        cost=float("inf") if played.broken else course_cost(task, np.array(sensors), actions, goal=goal),
        success=played.success,
        ever=any(played.reached),
        solved_at_start=played.reached[0],
        evaluations=tuple(reading.evaluations for reading in readings),
        wall_s=tuple(reading.wall_s for reading in readings),
        cpu_s=tuple(reading.cpu_s for reading in readings),
        statuses=dict(Counter(reading.status for reading in readings)),
        believed=readings[0].believed if readings else None,
        curve=tuple(readings[0].curve) if readings else (),
    )


def course_cost(task: Task, sensors: NDArray[np.float64], actions: NDArray[np.float32], *, goal: Goal) -> float:
    """The task's own cost of a trajectory: sensors `(T, Q)` after each of the actions `(T, A)`."""
    taken = torch.from_numpy(sensors)[None, None]
    rollout = Rollout(latents=torch.zeros(1, 1, len(sensors), 1, 1, dtype=torch.float64), sensors=taken)
    return float(task.cost(rollout, torch.from_numpy(actions)[None, None], goal)[0, 0])


@lru_cache(maxsize=4)
def task_at(
    name: str,
    checkpoint: Path | None,
    cameras: tuple[str, ...] = (),
    image_size: int = 64,
    *,
    dynamics: str = SIMULATOR,
    num_threads: int | None = 1,
    robot: str = "",
) -> Task:
    """A task of this process, with its own arm or another one; with the cameras of a learned world model, if named."""
    if checkpoint is not None:
        known = world_model_at(checkpoint, "cpu").interface
        cameras, image_size = known.cameras, known.image_size
    simulated = SIMULATOR if dynamics == LEARNED else dynamics
    arm = {"robot": robot} if robot else {}
    return envs.make_task(
        name, cameras=cameras, image_size=image_size, dynamics=simulated, num_threads=num_threads, **arm
    )


def agent_of(cell: Cell, task: Task, checkpoint: Path | None) -> tuple[Agent, list[Reading]]:
    """The agent of a cell, at the start of its episode, and the list that receives its search readings."""
    stream = seed_of(cell.seed, "search", cell.task, cell.start)
    if cell.baseline:
        policy = task.baselines[cell.kind](generator(stream, "policy"))
        return PolicyAgent(policy, task.env), []  # type: ignore[arg-type]
    settings = PlanSettings(
        planner=cell.kind,
        arguments=cell.arguments,
        horizon=cell.horizon,
        execute=cell.execute,
        effort=cell.effort if cell.dynamics == LEARNED else 0.0,
    )
    meter = Metered(settings.build())
    if cell.dynamics == LEARNED:
        assert checkpoint is not None
        robot: Any = task.env
        model = world_model_at(checkpoint, "cpu")
        return planning_agent(model, robot, settings, seed=stream, planner=meter), meter.readings
    agent = true_dynamics_agent(task.env, settings, seed=stream, dynamics=task.dynamics, cost=task.cost, planner=meter)
    return agent, meter.readings
