"""Planners on true dynamics: `python experiments/bench_planners.py tasks=[reach] planners=[cem,icem]`.

Plays every planner at every budget from the same starts with the same seeds, beside an idle agent, random actions and
an oracle, and writes table.csv, results.json, figures and a page. Each finished run has its own file: the same
command resumes a stopped run. `--help` lists the options.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import hydra
import torch
import torch._dynamo  # noqa: F401  before the first OpenGL context: loading it later crashes some drivers
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from jepa_mpc.errors import BadCheckpoint, MissingPackage, UnknownName
from jepa_mpc.experiments.evaluation.planners import planner_figures, planner_table
from jepa_mpc.experiments.evaluation.planners import planner_page as page
from jepa_mpc.experiments.evaluation.planners.advice import across, advice
from jepa_mpc.experiments.evaluation.planners.cell_player import Work, work_off
from jepa_mpc.experiments.evaluation.planners.code_fingerprint import fingerprint
from jepa_mpc.experiments.evaluation.planners.finished_cells import finished
from jepa_mpc.experiments.evaluation.planners.study import Study, study_of
from jepa_mpc.files import write_json, write_text
from jepa_mpc.places import CHECKPOINTS, CONFIGS
from jepa_mpc.reporting.record import plain
from jepa_mpc.runs import origin
from jepa_mpc.runs.run_folder import claim_run

SHIPPED = CHECKPOINTS / "reach"
log = logging.getLogger(__name__)
MISTAKES = (BadCheckpoint, BrokenProcessPool, MissingPackage, UnknownName, ValueError, OSError)
SHOWN = ("planner", "budget", "runs", page.SUCCESS, "true cost", "evaluations", "busy per plan", "p50 per plan")


def play(study: Study, cfg: DictConfig) -> None:
    """Play this shard's missing cells, with a progress bar."""
    folder, commit = Path(str(cfg.out)), origin.commit()
    mine = study.cells[cfg.shard :: cfg.shards]
    done = finished(study.cells, folder)
    for remark in done.remarks:
        log.warning("%s: they are played again if this command asks for them", remark)
    works = [
        Work(
            cell=cell,
            folder=folder,
            checkpoint=study.checkpoint,
            commit=commit,
            code=fingerprint(baseline=cell.baseline),
        )
        for cell in mine
        if cell.key not in done.outcomes
    ]
    with tqdm(total=len(mine), initial=len(mine) - len(works), unit="run", desc="planning") as bar:
        for outcome in work_off(works, workers=cfg.workers):
            bar.set_postfix_str(f"{outcome.cell.planner} on {outcome.cell.task}")
            bar.update()


def report(study: Study, cfg: DictConfig, *, interrupted: bool = False) -> tuple[list[planner_table.Row], str]:
    """Write results.json, table.csv, table.md, figures and page of all finished runs in the folder.

    Runs of other shards, and of wider studies in the same folder, are included. Without any run nothing is written.

    Returns:
        The rows of the table, and what is missing ("" if nothing is).
    """
    folder = Path(str(cfg.out))
    done = finished(study.cells, folder).outcomes
    outcomes = list(done.values())
    missing = sum(cell.key not in done for cell in study.cells)
    partial = f"Partial: {missing} of {len(study.cells)} runs are missing" if missing else ""
    partial += (
        f" ({'interrupted' if interrupted else 'other shards'}; run the same command to resume)" if missing else ""
    )
    if not outcomes:
        return [], partial
    rows = planner_table.table(outcomes, reference=cfg.reference)
    overall = across(rows)
    facts = {
        "partial": partial,
        "cells": missing + len(outcomes),
        "done": len(outcomes),
        "left_out": list(study.left_out),
        "command": shlex.join(["python", "experiments/bench_planners.py", *sys.argv[1:]]),
        "commits": sorted({outcome.commit for outcome in outcomes}),
        "code": sorted({outcome.code for outcome in outcomes}),
        "machine": origin.machine(),
        "workers": cfg.workers,
        "load": round(os.getloadavg()[0], 1),
        "versions": origin.versions(),
        "settings": OmegaConf.to_container(cfg, resolve=True),
    }
    write_json(
        folder / "results.json", plain({"facts": facts, "rows": rows, "overall": overall, "advice": advice(overall)})
    )
    write_text(folder / "table.csv", planner_table.as_csv(rows))
    write_text(folder / "table.md", page.markdown(rows, note=partial))
    drawn = planner_figures.draw(rows, outcomes, folder / "figures")
    page.write_page(rows, facts, folder / "report.html", figures=drawn)
    return rows, partial


def show(rows: list[planner_table.Row], study: Study, done: Path, *, partial: str) -> None:
    """Print one table per task, and one over all tasks with a sentence of advice."""
    console = Console(width=120)
    for task, group in page.by_task(rows).items():
        shown = Table(*SHOWN, title=task)
        for row in group:
            shown.add_row(*(page.COLUMNS[name](row) for name in SHOWN), style="dim" if row["baseline"] else None)
        console.print(shown)
    if overall := across(rows):
        shown = Table(*page.ACROSS, title="all tasks together")
        for row in overall:
            shown.add_row(*(cell(row) for cell in page.ACROSS.values()))
        console.print(shown)
        console.print(advice(overall) or "no advice: too little is done", style="bold", soft_wrap=True)
    if partial:
        console.print(partial, style="bold", soft_wrap=True)
    for line in study.left_out:
        console.print(f"left out: {line}", soft_wrap=True)
    console.print(f"table, figures and page: {done}", soft_wrap=True)


def bench(cfg: DictConfig) -> list[planner_table.Row]:
    """Play, write and print; returns the rows of the table.

    Raises:
        KeyboardInterrupt: If it was interrupted; the report of the finished runs is written first.
    """
    torch.set_num_threads(1)
    options: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    study, folder = study_of(options, configs=CONFIGS, shipped=SHIPPED), Path(str(cfg.out))
    claim_run(folder, "bench_planners", left=("cells",))
    interrupted = False
    try:
        play(study, cfg)
    except KeyboardInterrupt:
        interrupted = True
    rows, partial = report(study, cfg, interrupted=interrupted)
    if rows:
        show(rows, study, folder / "report.html", partial=partial)
    if interrupted:
        raise KeyboardInterrupt(f"interrupted; {partial or 'nothing is missing'}")
    return rows


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="bench_planners")
def main(cfg: DictConfig) -> None:
    """Run the benchmark."""
    try:
        bench(cfg)
    except KeyboardInterrupt as stop:
        print(f"bench_planners: {stop}", file=sys.stderr)
        sys.exit(130)
    except MISTAKES as error:
        sys.exit(f"bench_planners: {error}")
