"""Episodes of `pick-v1` from images: one episode of one agent is a cell, with a file of its own."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from jepa_mpc.envs.labs import Lab, sample_lab
from jepa_mpc.envs.pick import PickEnv
from jepa_mpc.envs.ranges import Level
from jepa_mpc.envs.task import Task
from jepa_mpc.experiments.evaluation.handling.headroom_cells import run_episode
from jepa_mpc.face.handling.handling_tasks import task_at
from jepa_mpc.face.handling.other_agents import OtherSystem, other_system
from jepa_mpc.face.handling.pick_films import filming
from jepa_mpc.face.handling.seeing_agents import ABLATIONS, FROZEN, SEEING, WORLD_MODEL, Looking
from jepa_mpc.face.handling.state_agents import AGENTS, Planning
from jepa_mpc.files import write_json
from jepa_mpc.plain_json import read_json_file
from jepa_mpc.seeding import generator, seed_of
from jepa_mpc.world_model.agents.handling_eyes import check_heads
from jepa_mpc.world_model.checkpoints.loader import load_world_model
from jepa_mpc.world_model.dynamics.model import WorldModel

STATED = {"oracle": "scripted", "random": "random", "do nothing": "do nothing", "true dynamics": "true dynamics"}
"""Controls that read true states or nothing -> their names among the agents of the headroom table."""
FROM_PICTURES = {**SEEING, **ABLATIONS}


@dataclass(frozen=True, kw_only=True)
class PickCell:
    """The settings of one episode.

    Args:
        agent: A name of `FROM_PICTURES` or of `STATED`, or any other for another system.
        lab, episode: Number of the lab, and of the episode in it.
        protocol, object, budget: See `PickEnv`.
        split, level, lab_seed: Where the labs come from; `lab_seed` also seeds starts and goals.
        planning: Planner settings of the agents.
        seed: Seed of the planner.
        fingerprint: Of the world model's weights.
    """

    agent: str
    lab: int
    episode: int
    protocol: str
    object: str
    budget: int
    split: str
    level: Level
    lab_seed: int
    planning: Planning
    seed: int
    fingerprint: str

    def place(self) -> Lab:
        """The lab."""
        return sample_lab(self.lab, split=self.split, seed=self.lab_seed, level=self.level)

    def is_other(self) -> bool:
        """Whether another system plays it."""
        return self.agent not in (*FROM_PICTURES, *STATED)

    def path(self, folder: Path) -> Path:
        """The cell's file."""
        return folder / "episodes" / f"{self.agent.replace(' ', '_')}-{self.lab:03d}-{self.episode}.json"


@dataclass(frozen=True, kw_only=True)
class PickWork:
    """A cell, its run folder, that of the system that plays it, and the path of the video, if there is one."""

    cell: PickCell
    folder: Path
    checkpoint: Path
    film: Path | None = None


def load_cell(cell: PickCell, folder: Path) -> dict[str, Any] | None:
    """The saved result of a cell, or None if it was not played, or with other weights."""
    path = cell.path(folder)
    if not path.exists():
        return None
    found: dict[str, Any] = read_json_file(path)
    return found if found["cell"]["fingerprint"] == cell.fingerprint else None


def work_cell(work: PickWork) -> dict[str, Any]:
    """Play a cell and save its result."""
    torch.set_num_threads(1)
    cell = work.cell
    other = other_at(work.checkpoint) if cell.is_other() else None
    sees = other or model_at(work.checkpoint).interface
    cameras = () if cell.agent in STATED else sees.cameras
    task = _task(cell.protocol, cell.object, cameras, sees.image_size, cell.budget)
    env = task.env
    assert isinstance(env, PickEnv)
    lab = cell.place()
    stream = seed_of(cell.lab_seed, lab.seed, lab.index, cell.episode)
    env.reset(seed=stream, options={"lab": lab})
    seed = seed_of(cell.seed, "agent", stream)
    draws = generator(seed, "agent")
    if other is not None:
        policy: Any = Looking(env, other.agent(env, cell.planning, seed))
    elif cell.agent in FROM_PICTURES:
        policy = FROM_PICTURES[cell.agent](env, model_at(work.checkpoint), cell.planning, draws)
    else:
        policy = AGENTS[STATED[cell.agent]](task, cell.planning, draws)
    began_s = time.process_time()
    with filming(work.film, env) as watch:
        facts = run_episode(task, policy, watch=watch)
    outcome = {"cell": asdict(cell), "lab": lab.name, **facts, "cpu_s": time.process_time() - began_s}
    cell.path(work.folder).parent.mkdir(parents=True, exist_ok=True)
    write_json(cell.path(work.folder), outcome)
    return outcome


def agents_of(*, frozen: bool, ablations: bool, true_dynamics: bool) -> list[str]:
    """Every requested agent, the world model first."""
    seeing = [name for name in SEEING if name != FROZEN or frozen]
    assert seeing[0] == WORLD_MODEL
    stated = [name for name in STATED if name != "true dynamics" or true_dynamics]
    return [*seeing, *(ABLATIONS if ablations else ()), *stated]


@lru_cache(maxsize=2)
def model_at(folder: Path) -> WorldModel:
    """A published world model, loaded once per process.

    Raises:
        BadCheckpoint: If it cannot be read, or cannot handle.
    """
    model = load_world_model(folder)
    check_heads(model)
    return model


@lru_cache(maxsize=4)
def other_at(folder: Path) -> OtherSystem:
    """Another system, loaded once per process.

    Raises:
        BadCheckpoint: If it cannot be read, or sees other cameras.
    """
    return other_system(folder)


@lru_cache(maxsize=8)
def _task(protocol: str, kind: str, cameras: tuple[str, ...], image_size: int, budget: int) -> Task:
    """The task, made once per process for each set of cameras, and once without images."""
    task = task_at(protocol, kind=kind, cameras=cameras, image_size=image_size)
    task.env.budget = budget
    return task
