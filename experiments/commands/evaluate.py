"""Score a world model in any environment: `python experiments/evaluate.py task=gym:Reacher-v5 checkpoint=runs/reacher`.

Compares it with true dynamics under the same planner, a user's policy, random actions and an idle agent, each in the
same episodes. Each finished episode has its own file: the same command resumes a stopped run.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import hydra
import torch
import torch._dynamo  # before the first OpenGL context: loading it later crashes some drivers
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from jepa_mpc.errors import BadCheckpoint, MissingPackage, UnknownName
from jepa_mpc.face.agents import WINDOW
from jepa_mpc.face.command_line import Stopped
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.face.scoring import POLICY, TRUE, WORLD_MODEL, Scoring, markdown, summary
from jepa_mpc.face.training.distributed import device_of
from jepa_mpc.files import only_writer, write_json, write_text
from jepa_mpc.places import CONFIGS
from jepa_mpc.plain_json import read_json_file
from jepa_mpc.planners import planner_choice
from jepa_mpc.reporting.record import plain
from jepa_mpc.runs import origin
from jepa_mpc.runs.run_folder import claim_run
from jepa_mpc.runs.worker_pool import in_processes

FREE = ("out", "workers", "copies", "episodes", "films")  # may differ when a run is resumed
FORMAT = "evaluation-v1"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One episode of one method.

    Args:
        options: The options of the command, as JSON.
        method: The method.
        episode: Number of the episode.
    """

    options: str
    method: str
    episode: int

    def folder(self) -> Path:
        """The run folder."""
        return Path(json.loads(self.options)["out"])

    def name(self) -> str:
        """Stem of its files."""
        return f"{self.method.replace(' ', '_')}-{self.episode:03d}"

    def path(self) -> Path:
        """Path of its result."""
        return self.folder() / "episodes" / f"{self.name()}.json"

    def film(self) -> Path | None:
        """Path of its video: the world model's first episodes have one."""
        wanted = self.method == WORLD_MODEL and self.episode < json.loads(self.options)["films"]
        return self.folder() / "videos" / f"{self.name()}.mp4" if wanted else None


@lru_cache(maxsize=1)
def scoring_of(options: str) -> Scoring:
    """The scoring that the options describe; the environment is made once per process."""
    cfg = json.loads(options)
    name, arguments = planner_choice(cfg["planner"])
    settings = PlanSettings(planner=name, arguments=arguments, effort=cfg["effort"], execute=cfg["execute"])
    asked = {
        name: cfg[name]
        for name in ("task", "checkpoint", "horizon", "seed", "goal", "env", "policy", "device", "copies", "context")
    }
    return Scoring(settings=settings, **asked)


def work_some(jobs: list[Job]) -> list[dict[str, Any]]:
    """Play jobs of one method at once and save their results."""
    torch.set_num_threads(1)
    films = [job.film() for job in jobs]
    for place in (*(job.path() for job in jobs), *(film for film in films if film)):
        place.parent.mkdir(parents=True, exist_ok=True)
    outcomes = scoring_of(jobs[0].options).play(jobs[0].method, [job.episode for job in jobs], films)
    for job, outcome in zip(jobs, outcomes, strict=True):
        write_json(job.path(), plain(outcome))
    return outcomes


def at_once(jobs: list[Job], copies: int) -> list[list[Job]]:
    """Jobs in the order they came, with as many of one method in each group as there are copies."""
    groups: list[list[Job]] = []
    open_groups: dict[str, list[Job]] = {}
    for job in jobs:
        group = open_groups.get(job.method, [])
        if len(group) in (0, copies):
            open_groups[job.method] = group = []
            groups.append(group)
        group.append(job)
    return groups


def methods_of(options: Mapping[str, Any]) -> list[str]:
    """The methods to play: the named ones, or all that are available."""
    scoring = scoring_of(json.dumps(options))
    if options["methods"] is not None:
        for name in options["methods"]:
            scoring.agent(name, 0)
        return list(options["methods"])
    try:
        scoring.agent(TRUE, 0)
    except ValueError as error:
        tqdm.write(f"without {TRUE}: {error}", file=sys.stderr)
        return [name for name in scoring.methods() if name != TRUE]
    return list(scoring.methods())


def play(jobs: list[Job], *, workers: int, copies: int = 1) -> None:
    """Play the unfinished jobs.

    Raises:
        Stopped: If it was interrupted; finished episodes are kept.
    """
    missing = [job for job in jobs if not job.path().exists()]
    try:
        with tqdm(total=len(jobs), initial=len(jobs) - len(missing), unit="episode", desc="playing") as bar:
            for outcomes in in_processes(work_some, at_once(missing, copies), workers=workers):
                bar.set_postfix_str(outcomes[0]["method"])
                bar.update(len(outcomes))
    except KeyboardInterrupt as stop:
        done = sum(job.path().exists() for job in jobs)
        raise Stopped(f"after {done} of {len(jobs)} episodes: run the same command to resume") from stop


def report(jobs: list[Job], options: Mapping[str, Any]) -> str:
    """Write report.json and table.md of all finished episodes; returns the table."""
    found = [read_json_file(job.path()) for job in jobs if job.path().exists()]
    names = dict.fromkeys(job.method for job in jobs)
    rows = {name: summary(mine) for name in names if (mine := [one for one in found if one["method"] == name])}
    facts = {
        "format": FORMAT,
        "protocol": {**options, "command": shlex.join(["python", "experiments/evaluate.py", *sys.argv[1:]])},
        "commit": origin.commit(),
        "machine": origin.machine(),
        "versions": origin.versions(),
        "summary": rows,
        "episodes": found,
    }
    folder = Path(options["out"])
    write_json(folder / "report.json", plain(facts))
    write_text(folder / "table.md", text := markdown(rows))
    return text


def options_of(cfg: DictConfig) -> dict[str, Any]:
    """The options as plain values.

    Raises:
        ValueError: If a number is out of range, the device unknown, a method named twice, or the method `policy` named
            without a policy.
    """
    options: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    options |= {name: options[name] or {} for name in ("env", "goal")}
    for name in ("episodes", "execute", "workers", "copies"):
        if type(options[name]) is not int or options[name] < 1:
            raise ValueError(f"{name} must be a whole number from 1, got {options[name]!r}")
    if options["context"] not in range(1, WINDOW + 1):
        raise ValueError(f"context must be a whole number from 1 to {WINDOW}, got {options['context']!r}")
    options["device"] = str(device_of(str(options["device"])))
    methods = options["methods"]
    if methods is not None and (not isinstance(methods, list) or not methods or len(set(methods)) != len(methods)):
        raise ValueError(f"methods must be a list of different names, got {methods!r}; leave it out for all")
    if POLICY in (methods or ()) and options["policy"] is None:
        raise ValueError("the method policy needs policy=FILE.py:NAME")
    return options


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Play the missing episodes, and print the table."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    try:
        options = options_of(cfg)
        folder, told = Path(options["out"]), json.dumps(options)
        methods = methods_of(options)
        jobs = [Job(options=told, method=name, episode=i) for i in range(options["episodes"]) for name in methods]
        claim_run(folder, "evaluate", {name: value for name, value in options.items() if name not in FREE})
        with only_writer(folder, what="run"):
            play(jobs, workers=options["workers"], copies=options["copies"])
            tqdm.write(report(jobs, options))
    except (BadCheckpoint, MissingPackage, UnknownName, ValueError, OSError) as error:
        sys.exit(f"evaluate: {error}")
