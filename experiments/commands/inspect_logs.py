"""Inspect a robot log of any known format: `python experiments/inspect_logs.py path=logs/reach`.

Prints fields, shapes, units, rates, lengths, statistics and faults; saves a preview sheet, a video and the guessed
robot map.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Column, Table
from tqdm import tqdm

from jepa_mpc.errors import BadEpisode, MissingPackage, UnknownName
from jepa_mpc.face.command_line import check_complete
from jepa_mpc.face.log_previews import film, preview_sheet
from jepa_mpc.files import write_json, write_text
from jepa_mpc.places import CONFIGS
from jepa_mpc.reporting.video import save_picture, save_video
from jepa_mpc.runs.run_folder import claim_run
from jepa_mpc.trajectories.formats import open_log
from jepa_mpc.trajectories.inspection import COUNTERS, LogReport, inspect_log
from jepa_mpc.trajectories.robots import MappedLog, chosen_map

MOST_AXES = 8


def look(cfg: DictConfig) -> LogReport:
    """Inspect the log, print the findings and save the images.

    Raises:
        ValueError: If `out` holds something else.
        BadEpisode: If the log cannot be opened at all.
    """
    claim_run(Path(cfg.out), "inspect_logs", left=("report.json",))
    reader = open_log(Path(cfg.path), format=cfg.format)
    log = MappedLog(reader, robot=chosen_map(reader, OmegaConf.to_container(cfg.robot, resolve=True)))
    report = inspect_log(log, frames=cfg.frames, progress=lambda items: tqdm(items, unit="episode", desc="reading"))
    folder = Path(cfg.out)
    sound = [index for index in range(len(log)) if index not in report.damaged]
    if sound and log.cameras:
        chosen = [sound[i] for i in np.linspace(0, len(sound) - 1, min(len(sound), int(cfg.episodes))).astype(int)]
        save_picture(preview_sheet(log, chosen), folder / "preview.png")
        frames = [frame for index in chosen for frame in film(log, index)]
        save_video(frames, folder / "preview.mp4", fps=min(1 / log.dt_s if log.dt_s > 0 else 10.0, 30.0))
    write_json(folder / "report.json", _summary(report, log))
    _write_map(log, folder)
    show(report, Console(width=120))
    return report


def show(report: LogReport, console: Console) -> None:
    """Print a report."""
    rate = f"{1 / report.dt_s:.6g} Hz" if report.dt_s > 0 else "rate unknown"
    seconds = f", {report.num_steps * report.dt_s / 60:.1f} min" if report.dt_s > 0 else ""
    low, middle, high = np.percentile(report.lengths, [0, 50, 100])
    console.print(
        f"[bold]{report.format}[/]: {len(report.lengths)} episodes, {report.num_steps} steps{seconds}, {rate}"
    )
    console.print(f"episode length: {low:.0f} to {high:.0f} steps, median {middle:.0f}")
    console.print(_declarations(report), _statistics(report))
    for index, problem in report.damaged.items():
        console.print(f"[red]damaged[/] episode {index}: {problem}", markup=True, highlight=False)
    for remark in report.remarks:
        console.print(f"[yellow]note[/] {remark}", highlight=False)
    if not report.damaged and not report.remarks:
        console.print("no problem found")


def _declarations(report: LogReport) -> Table:
    table = Table(Column("field", no_wrap=True), "step", "dtype", "unit", "rate")
    for name, found in report.fields.items():
        shape = " x ".join(map(str, found.field.shape)) or "1"
        rate = f"{found.field.hz:.6g} Hz" if found.field.hz else "-"
        table.add_row(name, shape, found.field.dtype, found.field.unit or "-", rate)
    return table


def _statistics(report: LogReport) -> Table:
    """A row per axis, without counters; long vectors are cut to their first axes."""
    table = Table(
        Column("axis", no_wrap=True), *(Column(name, justify="right") for name in ("low", "mean", "std", "high"))
    )
    for name, found in report.fields.items():
        rows = list(zip(found.low, found.mean, found.std, found.high, strict=True)) if name not in COUNTERS else []
        for axis, row in enumerate(rows[:MOST_AXES]):
            table.add_row(f"{name} {axis}", *(f"{value:.4g}" for value in row))
        if len(rows) > MOST_AXES:
            table.add_row(f"{name} ... {len(rows) - 1}", "...", "...", "...", "...")
    return table


def _write_map(log: MappedLog, folder: Path) -> None:
    """Write `robot.yaml`; one that is there and says something else may have been corrected by hand and is kept."""
    path, text = folder / "robot.yaml", "# correct what is wrong, and train with robot=robot.yaml\n" + _robot(log)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        path = folder / "robot_guessed.yaml"
        print(f"{folder / 'robot.yaml'} is kept; the map of this inspection: {path}")
    write_text(path, text)


def _robot(log: MappedLog) -> str:
    """The robot map of the log, without its empty entries."""
    return OmegaConf.to_yaml({key: value for key, value in log.robot.to_dict().items() if value not in (None, [], "")})


def _summary(report: LogReport, log: MappedLog) -> dict[str, Any]:
    return {
        "format": report.format, "lengths": list(report.lengths), "dt_s": report.dt_s, "cameras": list(report.cameras),
        "robot": log.robot.to_dict(), "remarks": list(report.remarks),
        "damaged": {str(index): text for index, text in report.damaged.items()},
        "fields": {
            name: {
                "shape": list(found.field.shape), "dtype": found.field.dtype, "unit": found.field.unit,
                "low": list(found.low), "mean": list(found.mean), "std": list(found.std), "high": list(found.high),
            }
            for name, found in report.fields.items()
        },
    }  # fmt: skip


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="inspect_logs")
def main(cfg: DictConfig) -> None:
    """Inspect, and end with status 1 if an episode is damaged."""
    check_complete(cfg, name="inspect_logs")
    try:
        report = look(cfg)
    except (BadEpisode, UnknownName, MissingPackage, ValueError, OSError) as error:
        sys.exit(f"inspect_logs: {error}")
    print(f"preview and report: {cfg.out}")
    if report.damaged:
        sys.exit(f"inspect_logs: {len(report.damaged)} of {len(report.lengths)} episodes are damaged")
