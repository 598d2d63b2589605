"""Ablations of the two-mode agent, one module at a time: `python experiments/agent_ablations.py ablations=quick`.

Plays every variant in the same labs from the same starts, and the wall task with and without a critic; writes
results.json, table.md and figures. Each finished episode has its own file: the same command resumes a stopped run.
"""

from __future__ import annotations

import shlex
import sys
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
import torch
import torch._dynamo  # noqa: F401  before the first OpenGL context: loading it later crashes some drivers
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from jepa_mpc import envs  # noqa: F401  chooses the OpenGL backend
from jepa_mpc.errors import BadCheckpoint, MissingPackage, UnknownName
from jepa_mpc.experiments.evaluation.agents.ablation_tables import (
    DOUBT_HEAD,
    HEAD,
    WALL_HEAD,
    cells_of,
    doubt_cells,
    doubt_rows,
    draw,
    draw_doubts,
    draw_wall,
    row_of,
    wall_cells,
    wall_row,
)
from jepa_mpc.experiments.evaluation.agents.ablations import (
    DOUBT,
    WALL_WITH,
    WALL_WITHOUT,
    AblationCell,
    AblationWork,
    kept,
    variants,
    work_off,
)
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.face.two_modes import TwoModeSettings
from jepa_mpc.files import write_json, write_text
from jepa_mpc.places import CONFIGS
from jepa_mpc.planners import planner_choice
from jepa_mpc.reporting.record import plain
from jepa_mpc.reporting.saving import markdown_table
from jepa_mpc.runs import origin
from jepa_mpc.runs.run_folder import claim_run
from jepa_mpc.runs.worker_pool import in_processes

MISTAKES = (BadCheckpoint, BrokenProcessPool, MissingPackage, UnknownName, ValueError, OSError)


def reach_cells(cfg: DictConfig, full: TwoModeSettings) -> list[AblationCell]:
    """Every episode of every variant."""
    planner: dict[str, Any] = OmegaConf.to_container(cfg.planner, resolve=True)  # type: ignore[assignment]
    name, arguments = planner_choice(planner)
    settings = PlanSettings(planner=name, arguments=arguments, horizon=cfg.horizon, effort=cfg.effort)
    settings.build()
    return [
        AblationCell(
            variant=label,
            full=None if chosen is None else plain(asdict(chosen)),
            settings={key: value for key, value in plain(asdict(settings)).items() if key != "deadline_s"},
            checkpoint=str(cfg.checkpoint),
            split=cfg.split,
            level=cfg.level,
            lab_seed=cfg.lab_seed,
            lab=lab,
            episode=episode,
            budget=cfg.budget,
            seed=seed,
        )
        for seed in cfg.seeds
        for lab in range(cfg.labs)
        for episode in range(cfg.episodes)
        for label, chosen in variants(full).items()
    ]


def wall_cells_of(cfg: DictConfig) -> list[AblationCell]:
    """The wall task with and without a critic, once per seed."""
    settings: dict[str, Any] = OmegaConf.to_container(cfg.wall, resolve=True)  # type: ignore[assignment]
    seeds = settings.pop("seeds")
    return [
        AblationCell(variant=name, settings=settings, seed=seed) for seed in seeds for name in (WALL_WITHOUT, WALL_WITH)
    ]


def doubt_cells_of(cfg: DictConfig, full: TwoModeSettings) -> list[AblationCell]:
    """The ensemble's disagreement on starts and goals of each split, if there is an ensemble."""
    if not full.members:
        return []
    sizes = {"labs": cfg.doubts.labs, "frames": cfg.doubts.frames}
    return [
        AblationCell(
            variant=f"{DOUBT}{split}",
            full=plain(asdict(full)),
            settings=sizes,
            checkpoint=str(cfg.checkpoint),
            split=split,
            level=cfg.level,
            lab_seed=cfg.lab_seed,
        )
        for split in cfg.doubts.splits
    ]


def play(cells: list[AblationCell], folder: Path, *, workers: int) -> None:
    """Play the cells without a result, with a progress bar."""
    works = [AblationWork(cell=cell, folder=folder) for cell in cells if kept(cell, folder) is None]
    with tqdm(total=len(cells), initial=len(cells) - len(works), unit="run", desc="ablations") as bar:
        for done in in_processes(work_off, works, workers=workers):
            bar.set_postfix_str(done.cell.variant)
            bar.update()


def report(cells: list[AblationCell], folder: Path, cfg: DictConfig) -> None:
    """Write results, tables and figures, and print the tables."""
    outcomes: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        found = kept(cell, folder)
        assert found is not None
        outcomes.setdefault(cell.variant, []).append(found)
    walls = {name: outcomes.pop(name) for name in (WALL_WITHOUT, WALL_WITH) if name in outcomes}
    doubts = {n.removeprefix(DOUBT): outcomes.pop(n)[0] for n in tuple(outcomes) if n.startswith(DOUBT)}
    rows = [row_of(name, found) for name, found in outcomes.items()]
    wall_rows = [wall_row(name, found) for name, found in walls.items()]
    tables = []
    if rows:
        tables.append((f"Reaching, split '{cfg.split}'", HEAD, [cells_of(row) for row in rows]))
        draw(rows, folder / "figures" / "ablations.png")
    if wall_rows:
        tables.append(("Behind a wall, horizon 5", WALL_HEAD, [wall_cells(row) for row in wall_rows]))
        draw_wall({name: found[0] for name, found in walls.items()}, folder / "figures" / "wall.png")
    rank = None
    if doubts:
        tables.append(("What the ensemble does not know", DOUBT_HEAD, [doubt_cells(row) for row in doubt_rows(doubts)]))
        rank = draw_doubts(doubts, folder / "figures" / "doubts.png")
    write_text(
        folder / "table.md", "\n".join(f"### {name}\n\n{markdown_table(head, body)}" for name, head, body in tables)
    )
    facts = {
        "command": shlex.join(["python", "experiments/agent_ablations.py", *sys.argv[1:]]),
        "commit": origin.commit(),
        "machine": origin.machine(),
        "config": OmegaConf.to_container(cfg, resolve=True),
    }
    write_json(
        folder / "results.json", plain({**facts, "reach": rows, "wall": wall_rows, **_doubts_told(doubts, rank)})
    )
    for name, head, body in tables:
        table = Table(*head, title=name)
        for line in body:
            table.add_row(*line)
        Console().print(table)


def _doubts_told(doubts: dict[str, dict[str, Any]], rank: float | None) -> dict[str, Any]:
    return {"doubts": doubt_rows(doubts), "spearman": rank} if doubts else {}


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="agent_ablations")
def main(cfg: DictConfig) -> None:
    """Play, write, and print the folder of the result."""
    torch.set_num_threads(1)
    try:
        agent: dict[str, Any] = OmegaConf.to_container(cfg.agent, resolve=True)  # type: ignore[assignment]
        full = TwoModeSettings.of(agent)
        if full is None:
            raise ValueError("the ablations are those of agent=full")
        cells = (reach_cells(cfg, full) if cfg.labs else []) + wall_cells_of(cfg)
        cells += doubt_cells_of(cfg, full)
        if not cells:
            raise ValueError("there are no episodes to run: give labs= or wall.seeds=")
        folder = Path(str(cfg.out))
        claim_run(folder, "agent_ablations", left=("cells",))
        play(cells, folder, workers=cfg.workers)
        report(cells, folder, cfg)
    except MISTAKES as error:
        sys.exit(f"agent_ablations: {error}")
    if not full.members:
        Console(stderr=True).print("one world model alone: no row 'no ensemble'; agent.members=[...] names more")
    Console().print(f"results: {folder}", soft_wrap=True)
