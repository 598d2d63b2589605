"""The possible gain from predicting an object's motion: `python experiments/headroom.py tasks=[push,final]`.

One agent with one family of costs plans in true dynamics. It is compared with the same agent in a world where
everything but the hand is static, with servo controllers, a script, random actions and an idle agent. Nothing is
learned or rendered. Each finished episode has its own file: the same command resumes a stopped run. `--help` lists
the options.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from jepa_mpc.envs.things import KINDS
from jepa_mpc.errors import UnknownName, choose
from jepa_mpc.experiments.evaluation.handling.headroom_cells import Cell, Work, load, work_one
from jepa_mpc.experiments.evaluation.handling.headroom_table import leads, markdown, summary
from jepa_mpc.face.handling.handling_tasks import TASKS
from jepa_mpc.face.handling.state_agents import AGENTS, PLANNING
from jepa_mpc.files import write_json, write_text
from jepa_mpc.places import CONFIGS
from jepa_mpc.reporting.record import plain
from jepa_mpc.runs import origin
from jepa_mpc.runs.run_folder import claim_run
from jepa_mpc.runs.worker_pool import in_processes

OWN = ("object", "split", "level", "lab_seed", "horizon", "num_samples", "num_iterations", "seed")


def cells_of(cfg: DictConfig) -> list[Cell]:
    """Every requested episode: all agents in one lab, then the next lab.

    Raises:
        UnknownName: If a task, the kind of object or an agent is unknown.
        ValueError: If there is no episode.
    """
    for name in cfg.tasks:
        choose(dict.fromkeys(TASKS), name, "task")
    choose(dict.fromkeys((*KINDS, "mixed")), str(cfg.object), "object")
    for name in cfg.agents:
        choose(AGENTS, name, "agent")
    if cfg.episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {cfg.episodes}")
    options: Any = {name: cfg[name] for name in OWN}
    unplanned = {**options, "horizon": 0, "num_samples": 0, "num_iterations": 0}
    return [
        Cell(task=task, agent=agent, episode=episode, **(options if agent in PLANNING else unplanned))
        for episode in range(cfg.episodes)
        for task in cfg.tasks
        for agent in cfg.agents
    ]


def report(cells: list[Cell], cfg: DictConfig) -> str:
    """Write headroom.json and table.md of all finished episodes; returns the tables."""
    folder = Path(str(cfg.out))
    outcomes: dict[tuple[str, str], list[dict[str, Any]]] = {(cell.task, cell.agent): [] for cell in cells}
    for cell in cells:
        found = load(cell, folder)
        if found is not None:
            outcomes[cell.task, cell.agent].append(found)
    ordered = {(task, agent): outcomes[task, agent] for task in cfg.tasks for agent in cfg.agents}
    tasks, ahead = summary(ordered), leads(ordered)
    facts = {"commit": origin.commit(), "machine": origin.machine(), "settings": OmegaConf.to_container(cfg)}
    write_json(folder / "headroom.json", plain({"facts": facts, "tasks": tasks, "leads": ahead}))
    text = markdown(tasks, ahead)
    write_text(folder / "table.md", text)
    return text


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="headroom")
def main(cfg: DictConfig) -> None:
    """Play the missing episodes, and print the table."""
    torch.set_num_threads(1)
    folder = Path(str(cfg.out))
    try:
        cells = cells_of(cfg)
        claim_run(folder, "headroom", left=("episodes",))
        works = [Work(cell=cell, folder=folder) for cell in cells if load(cell, folder) is None]
        with tqdm(total=len(cells), initial=len(cells) - len(works), unit="episode", desc="playing") as bar:
            for outcome in in_processes(work_one, works, workers=int(cfg.workers)):
                bar.set_postfix_str(f"{outcome['cell']['agent']} on {outcome['cell']['task']}")
                bar.update()
        print(report(cells, cfg))
    except (UnknownName, ValueError, OSError) as error:
        sys.exit(f"headroom: {error}")
