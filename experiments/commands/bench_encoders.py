"""Camera encoders on one robot task: `python experiments/bench_encoders.py data=logs/reach out=runs/encoders`.

Pretrains every system on the same log for the same time, and sets it beside the same network with fresh weights, raw
pixels, and the same network trained on the labels: probes for the places of hand and object in labs kept out, a
predictor on the frozen features, and reaching with it. Every cell has a file of its own: the same command goes on where
it was stopped, and report.json, report.md and encoders.png are written anew after each. Several processes may share a
folder if each has systems of its own; the same command with all systems then writes the whole report. `--help` lists
the options.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import hydra
import torch
import torch._dynamo  # noqa: F401  before the first OpenGL context: loading it later crashes some drivers
from omegaconf import DictConfig, OmegaConf

from jepa_mpc.experiments.evaluation.encoders.encoder_cells import PARTS, EncoderCell, Outcome, ordered
from jepa_mpc.experiments.evaluation.encoders.encoder_figure import draw
from jepa_mpc.experiments.evaluation.encoders.encoder_table import markdown, rows_of, summary, verdicts
from jepa_mpc.experiments.evaluation.encoders.encoder_work import MISTAKES, check_options, facts, worked_off
from jepa_mpc.face.evaluation.feature_probes import READERS
from jepa_mpc.files import write_json, write_text
from jepa_mpc.places import CONFIGS
from jepa_mpc.reporting.record import plain
from jepa_mpc.runs.run_folder import claim_run


def check(cfg: DictConfig) -> None:
    """Refuse options that no run could use.

    Raises:
        UnknownName: If a system, part or probe is unknown.
        ValueError: If a list is empty or a number out of range; names it.
    """
    check_options(
        cfg,
        lists=("systems", "seeds", "parts", "readers"),
        known={"systems": cfg.trainings, "parts": PARTS, "readers": READERS},
    )
    if "reach" in cfg.parts and cfg.reach_seed in cfg.seeds and "predictor" not in cfg.parts:
        raise ValueError("reaching needs the predictors: give parts=[predictor,reach], or leave reach out")


def bench(cfg: DictConfig) -> str:
    """Do every cell that is not done, with a report after each; returns the page.

    Raises:
        Stopped: If it was interrupted; cells that are done are kept, and a training up to its last saved state.
    """
    check(cfg)
    torch.set_num_threads(int(cfg.threads))
    claim_run(Path(cfg.out), "bench_encoders")
    cells = ordered(cfg.systems, map(int, cfg.seeds), parts=cfg.parts, reach_seed=cfg.reach_seed)
    report = partial(write_report, cfg)
    return report(worked_off(cfg, cells, report, title="encoders"), figure=True)


def write_report(cfg: DictConfig, outcomes: Mapping[EncoderCell, Outcome], *, figure: bool) -> str:
    """Write report.json, report.md and, where it has changed, the figure of all cells so far; returns the page."""
    out, rows = Path(cfg.out), rows_of(outcomes)
    report = {
        "facts": facts("bench_encoders"),
        "settings": OmegaConf.to_container(cfg, resolve=True),
        "summary": summary(rows),
        "verdicts": verdicts(rows, cfg.systems, list(cfg.seeds), least=float(cfg.least_lead), probes=len(cfg.readers)),
        "cells": {cell.name: outcome for cell, outcome in outcomes.items()},
    }
    text = markdown(report, outcomes)
    write_json(out / "report.json", plain(report))
    write_text(out / "report.md", text)
    if figure:
        draw(report["summary"], outcomes, list(cfg.systems), out / "encoders.png")
    return text


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="bench_encoders")
def main(cfg: DictConfig) -> None:
    """Compare, print the tables, and say where the files are."""
    try:
        page = bench(cfg)
    except MISTAKES as mistake:
        sys.exit(f"bench_encoders: {mistake}")
    print(page)
    print(f"{cfg.out}: report.json, report.md, encoders.png")
