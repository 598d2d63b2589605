"""Encoders of clouds and sounds at jobs of the robot: `python experiments/bench_sensors.py sensor=clouds data=LOG`.

Pretrains every system of a sensor on a log, and sets it beside the same network with fresh weights, frozen and trained
on the labels, and plain features: the object's position and yaw from clouds, touches, slip and material from sound, in
labs kept out and with shares of the labels. Every cell has a file of its own: the same command goes on where it was
stopped, and report.json, report.md and sensors.png are written anew after each. `--help` lists the options.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from jepa_mpc.errors import choose
from jepa_mpc.experiments.evaluation.encoders.encoder_cells import TRAINED, EncoderCell, Outcome
from jepa_mpc.experiments.evaluation.encoders.encoder_table import rows_of
from jepa_mpc.experiments.evaluation.encoders.encoder_work import MISTAKES, check_options, facts, worked_off
from jepa_mpc.experiments.evaluation.sensors.sensor_figure import draw
from jepa_mpc.experiments.evaluation.sensors.sensor_jobs import SENSORS
from jepa_mpc.experiments.evaluation.sensors.sensor_probing import ASKED, WORK, sensor_cells
from jepa_mpc.experiments.evaluation.sensors.sensor_table import leads, markdown, scores
from jepa_mpc.face.evaluation.feature_probes import READERS
from jepa_mpc.files import write_json, write_text
from jepa_mpc.places import CONFIGS
from jepa_mpc.reporting.record import plain
from jepa_mpc.runs.run_folder import claim_run


def check(cfg: DictConfig) -> None:
    """Refuse options that no run could use, and fill in the sensor's systems.

    Raises:
        UnknownName: If sensor, system or probe is unknown.
        ValueError: If a list is empty or a number out of range; names it.
    """
    known = choose(SENSORS, str(cfg.sensor), "sensor").systems
    with open_dict(cfg):
        cfg.systems = list(known) if cfg.systems is None else cfg.systems
    check_options(cfg, lists=("systems", "seeds", "shares", "readers"), known={"systems": known, "readers": READERS})
    if not all(0 < share <= 1 for share in cfg.shares):
        raise ValueError(f"shares of the labels lie above 0 and up to 1, got {list(cfg.shares)}")


def bench(cfg: DictConfig) -> str:
    """Do every cell that is not done, with a report after each; returns the page.

    Raises:
        Stopped: If it was interrupted; cells that are done are kept, and a training up to its last saved state.
    """
    check(cfg)
    torch.set_num_threads(int(cfg.threads))
    claim_run(Path(cfg.out), "bench_sensors")
    report = partial(write_report, cfg)
    cells = sensor_cells(cfg.systems, list(map(int, cfg.seeds)))
    return report(worked_off(cfg, cells, report, title=str(cfg.sensor), work=WORK, asked=ASKED), figure=True)


def write_report(cfg: DictConfig, outcomes: Mapping[EncoderCell, Outcome], *, figure: bool) -> str:
    """Write report.json, report.md and, where it has changed, the figure of all cells so far; returns the page."""
    out, rows, systems = Path(cfg.out), rows_of(outcomes), list(cfg.systems)
    report = {
        "facts": facts("bench_sensors"),
        "settings": OmegaConf.to_container(cfg, resolve=True),
        "summary": scores(rows),
        "leads": leads(rows, systems, str(cfg.sensor)),
        "trainings": {cell.name: outcome for cell, outcome in outcomes.items() if cell.encoder == TRAINED},
    }
    text = markdown(report, outcomes)
    write_json(out / "report.json", plain(report))
    write_text(out / "report.md", text)
    if figure:
        draw(report["summary"], systems, str(cfg.sensor), out / "sensors.png")
    return text


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="bench_sensors")
def main(cfg: DictConfig) -> None:
    """Compare, print the tables, and say where the files are."""
    try:
        page = bench(cfg)
    except MISTAKES as mistake:
        sys.exit(f"bench_sensors: {mistake}")
    print(page)
    print(f"{cfg.out}: report.json, report.md, sensors.png")
