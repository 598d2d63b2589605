"""Episodes of one lab: all methods from the same starts to the same goals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from jepa_mpc.envs.labs import Lab
from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.envs.robots import DEFAULT
from jepa_mpc.episode import PlayedEpisode, run_episode
from jepa_mpc.face.evaluation.methods import WORLD_MODEL, Methods
from jepa_mpc.face.evaluation.reach_films import Film, open_film, worst
from jepa_mpc.face.viewing import EpisodeView, open_view
from jepa_mpc.reporting.contact_sheet import Tile
from jepa_mpc.reporting.record import EpisodeRecord
from jepa_mpc.runs.worker_pool import in_processes
from jepa_mpc.seeding import seed_of


@dataclass(frozen=True, kw_only=True)
class LabJob:
    """The job of one worker.

    Args:
        lab: The lab.
        index: Its index in the list of labs.
        split: The split that it represents in the report.
        episodes: Episodes per method.
        seed: Base seed of starts and goals.
        budget: Control steps per episode.
        cameras, image_size: Camera inputs of the model.
        methods: Builds the agents.
        names: The methods to play.
        film: Path of the video of the world model's episodes, or None.
        robot: The robot, a name of `envs.robots.ROBOTS`.
        view: Path of the recording of the world model's episodes, or None.
    """

    lab: Lab
    index: int
    split: str
    episodes: int
    seed: int
    budget: int
    cameras: tuple[str, ...]
    image_size: int
    methods: Methods
    names: tuple[str, ...]
    film: Path | None = None
    robot: str = DEFAULT
    view: Path | None = None


@dataclass(frozen=True, kw_only=True)
class LabResult:
    """The episodes of one lab, and the world model's worst one for the contact sheet."""

    index: int
    records: tuple[EpisodeRecord, ...]
    tile: Tile | None


def play_lab(job: LabJob) -> LabResult:
    """Play all episodes of all methods in one lab (in a worker process)."""
    torch.set_num_threads(1)
    env = _environment(job.robot, job.cameras, job.image_size, job.budget)
    records: list[EpisodeRecord] = []
    tiles: list[Tile] = []
    for name in job.names:
        filmed, viewed = (job.film, job.view) if name == WORLD_MODEL else (None, None)
        with open_film(filmed, env, job.methods.checkpoint) as film, open_view(viewed) as view:
            for episode in range(job.episodes):
                records.append(play_episode(job, name, episode, env, film, view))
            if film is not None:
                tiles.extend(film.finals)
    return LabResult(index=job.index, records=tuple(records), tile=worst(tiles))


def play_episode(
    job: LabJob, name: str, episode: int, env: ReachEnv, film: Film | None, view: EpisodeView | None = None
) -> EpisodeRecord:
    """Play one episode; start, goal and image noise depend only on lab and episode, not on the method."""
    seed = seed_of(job.seed, job.lab.seed, job.lab.index, episode)
    env.reset(seed=seed, options={"lab": job.lab})
    agent = job.methods.agent(name, env, stream=seed)
    if view is not None:
        view.begin(agent, env.goal())
    if film is not None:
        film.begin(env, episode)

    def decided(played: PlayedEpisode) -> None:
        if film is not None:
            film.show(env, played)
        if view is not None:
            view.decided(env, played)

    played = run_episode(env, agent, steps=job.budget, decided=decided)
    if film is not None:
        film.end(env, played)
    logs = [log for log in played.logs if log is not None]
    believed = [math.nan if log.goal_distance is None else float(log.goal_distance[0]) for log in logs]
    statuses = tuple(log.status for log in logs)
    return EpisodeRecord.judged(
        method=name,
        lab=job.lab.name,
        lab_index=job.index,
        split=job.split,
        seed=seed,
        start_m=tuple(env.start_m.tolist()),
        goal_m=tuple(env.goal_m.tolist()),
        distances_m=played.distances,
        imagined_m=None if np.isnan(believed).all() else believed,
        ms_per_step=played.wall_ms,
        statuses=statuses if any(statuses) else (),
        video=None if film is None else f"videos/{film.path.name}",
    )


def play_all(jobs: Sequence[LabJob], *, workers: int) -> Iterator[LabResult]:
    """Play jobs in worker processes and yield results as they finish; one worker runs in this process."""
    return in_processes(play_lab, jobs, workers=workers)


@lru_cache(maxsize=1)
def _environment(robot: str, cameras: tuple[str, ...], image_size: int, budget: int) -> ReachEnv:
    """The environment (and OpenGL context) of this process."""
    return ReachEnv(robot=robot, cameras=cameras, image_size=image_size, budget=budget)
