"""How fast learned dynamics plan: `python experiments/bench_speed.py`.

A LeWorldModel of the published size with random weights plans with the cross-entropy method: in a direct
implementation ("plain"), with the published window and all exact optimisations, and in our own form with a
key-value cache; each in 32 and 16 bits. All alternate in one process; the table shows medians per round of the
search (CPU time of the process, or device time on a GPU), ratios to the plain rollout of the same context, and the
difference from it. Also `what=loop`, a small model in a real-time control loop; `what=searches`, the cost of a
planner with free dynamics, and batched worlds; `what=simulator`, true dynamics beside a plain MuJoCo rollout.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from jepa_mpc.errors import UnknownName, choose
from jepa_mpc.experiments.evaluation.throughput.control_loop import drive
from jepa_mpc.experiments.evaluation.throughput.rollout_times import Sizes, instructions, measure, product_rate
from jepa_mpc.experiments.evaluation.throughput.search_times import PLANNERS, overhead, side_by_side
from jepa_mpc.experiments.evaluation.throughput.simulator_times import simulate
from jepa_mpc.files import write_json
from jepa_mpc.places import CONFIGS
from jepa_mpc.runs.run_folder import claim_run

ROLLOUTS = ("context", "variant", "ms", "to plain 32", "to plain of the same bits", "gflop", "distance")
OVERHEAD = ("planner", "samples", "ms per round", "fastest ms")
WORLDS = ("planner", "samples", "worlds", "one call ms", "a call each ms", "ratio", "largest gap")
SIMULATOR = ("task", "rows", "plain k steps/s", "ours k steps/s", "ratio")
LOOP = ("planning", "periods", "weights", "p50 cycle ms", "p99 cycle ms", "missed", "held", "oldest action ms")

Measured = tuple[list[dict[str, Any]], dict[str, Any], tuple[tuple[str, ...], ...]]
"""Rows, further facts, and the columns of each table."""


def bench_rollouts(cfg: DictConfig) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of the table, and further facts on the machine."""
    wanted = "cuda" if cfg.device == "auto" and torch.cuda.is_available() else cfg.device.replace("auto", "cpu")
    device = torch.device(wanted)
    names = ("preset", "samples", "iterations", "horizon", "window", "rounds", "seed")
    sizes = Sizes(**{name: cfg[name] for name in names}, contexts=tuple(cfg.contexts))
    rows = [row for frames in sizes.contexts for row in measure(frames, sizes, device)]
    if device.type == "cuda":
        return rows, {"gpu": torch.cuda.get_device_name(device)}
    rates = {str(dtype): product_rate(sizes, dtype) for dtype in (torch.float32, torch.bfloat16)}
    return rows, {"GFLOP per busy second of a matrix product": rates}


def bench(cfg: DictConfig) -> dict[str, Any]:
    """Measure, print the tables, write them to speed.json, loop.json etc.; returns the written results.

    Raises:
        UnknownName: If `what` is none of the benchmarks.
    """
    torch.set_num_threads(cfg.threads)
    facts: dict[str, Any] = {
        "machine": f"{os.cpu_count()} x {platform.machine()}",
        "instructions": instructions(),
        "load before": os.getloadavg()[0],
        "torch": torch.__version__,
    }
    measured = choose(BENCHMARKS, cfg.what, "benchmark")
    claim_run(Path(cfg.out), "bench_speed")
    rows, more, columns = measured(cfg)
    settings = OmegaConf.to_container(cfg, resolve=True)
    report: dict[str, Any] = {"settings": settings, "facts": facts | more, "rows": rows}
    write_json(Path(cfg.out) / f"{NAMES.get(cfg.what, cfg.what)}.json", report)
    print(f"instructions: {facts['instructions']}")
    for table in columns:
        show([row for row in rows if table[-1] in row], table)
    return report


def _rollouts(cfg: DictConfig) -> Measured:
    rows, more = bench_rollouts(cfg)
    return rows, more, (ROLLOUTS,)


def _loop(cfg: DictConfig) -> Measured:
    rows = [drive(way, count=cfg.beats, period_s=cfg.period_s, seed=cfg.seed) for way in cfg.planning]
    return rows, {}, (LOOP,)


def _searches(cfg: DictConfig) -> Measured:
    rows = [overhead(name, samples=cfg.samples, rounds=cfg.rounds) for name in PLANNERS]
    for name, samples in product(PLANNERS, (32, 64)):
        rows.append(side_by_side(name, worlds=cfg.worlds, samples=samples, rounds=cfg.rounds, seed=cfg.seed))
    return rows, {}, (OVERHEAD, WORLDS)


def _simulator(cfg: DictConfig) -> Measured:
    rows = [
        simulate(name, rows=count, rounds=cfg.rounds, seed=cfg.seed) for name, count in product(cfg.tasks, cfg.plans)
    ]
    return rows, {"mujoco": version("mujoco")}, (SIMULATOR,)


BENCHMARKS: dict[str, Callable[[DictConfig], Measured]] = {
    "rollouts": _rollouts,
    "loop": _loop,
    "searches": _searches,
    "simulator": _simulator,
}
NAMES = {"rollouts": "speed"}


def show(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Print some columns of the rows."""
    table = Table(*columns)
    for row in rows:
        cells = [row.get(column) for column in columns]
        table.add_row(*("" if x is None else f"{x:.3g}" if isinstance(x, float) else str(x) for x in cells))
    Console(width=140).print(table)


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="bench_speed")
def main(cfg: DictConfig) -> None:
    """Run the benchmark."""
    try:
        bench(cfg)
    except (UnknownName, ValueError, OSError) as error:
        sys.exit(f"bench_speed: {error}")
