"""How fast logs are ingested and clips are read: `python experiments/bench_loading.py`.

Makes the same episodes in several formats, converts each into a cache and reads clips at random positions, all in one
process on one thread; rates are per CPU second of that process. Writes loading.json, loading.md and loading.png.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from jepa_mpc.errors import BadEpisode, MissingPackage, UnknownName, choose
from jepa_mpc.experiments.evaluation.data_loading.loading_figure import draw_rates
from jepa_mpc.experiments.evaluation.data_loading.loading_rates import cache_rate, ingest_rate, log_rate
from jepa_mpc.experiments.evaluation.data_loading.synthetic_logs import KINDS, write_logs
from jepa_mpc.files import write_json, write_text
from jepa_mpc.places import CONFIGS
from jepa_mpc.reporting.saving import markdown_table
from jepa_mpc.runs.origin import commit, machine, versions
from jepa_mpc.runs.run_folder import claim_run

INGESTED = ("log", "pictures", "cached at", "frames per CPU s", "log MB", "cache MB")
CLIPS = ("source", "frames of a clip", "clips per CPU s")
MISTAKES = (BadEpisode, MissingPackage, UnknownName, ValueError, OSError)


def bench(cfg: DictConfig) -> dict[str, Any]:
    """Measure, print and write; returns the written results.

    Raises:
        UnknownName: If there is no such kind of log.
        OSError: If the disk is full.
    """
    torch.set_num_threads(1)
    out, kinds = Path(cfg.out), list(cfg.logs)
    for kind in kinds:
        choose(KINDS, kind, "log to measure")
    claim_run(out, "bench_loading")
    ingested: list[dict[str, Any]] = []
    clips: list[dict[str, Any]] = []
    small = (cfg.image_size, cfg.image_size)
    caches = []
    for size in (small, *(tuple(size) for size in cfg.larger)):
        logs = write_logs(out / "logs", kinds=kinds, episodes=cfg.episodes, steps=cfg.steps, size=size)
        for kind, path in logs.items():
            caches.append(out / "caches" / path.stem)
            found = ingest_rate(path, caches[-1], image_size=cfg.image_size, rounds=cfg.rounds)
            row = {"log": f"{kind}, {size[1]} x {size[0]}", "pictures": f"{size[1]} x {size[0]}", "cached at": small[0]}
            ingested.append(row | found)
    times = {"seconds": cfg.seconds, "rounds": cfg.rounds}
    for source, fresh in (("cache", False), ("cache, fresh memory", True)):
        for length in cfg.lengths:
            found = cache_rate(caches[0], length=length, batch=cfg.batch, fresh=fresh, **times)
            clips.append({"source": source, "frames of a clip": length} | found)
    logs = write_logs(out / "logs", kinds=kinds, episodes=cfg.episodes, steps=cfg.steps, size=small)
    for kind, path in logs.items():
        for length in cfg.lengths:
            clips.append({"source": kind, "frames of a clip": length} | log_rate(path, length=length, **times))
    facts = {"commit": commit(), "machine": machine(), "load": os.getloadavg()[0], **versions()}
    tables = ((ingested, INGESTED), (clips, CLIPS))
    report = {"settings": OmegaConf.to_container(cfg, resolve=True), "facts": facts, "ingest": ingested, "clips": clips}
    write_json(out / "loading.json", report)
    write_text(out / "loading.md", "\n".join(markdown_table(head, cells(rows, head)) for rows, head in tables))
    draw_rates(out / "loading.png", ingested, clips)
    return report


def cells(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[list[str]]:
    """Some columns of the rows as text."""
    return [[_cell(row[name]) for name in columns] for row in rows]


def show(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print some columns of the rows."""
    table = Table(*columns)
    for row in cells(rows, columns):
        table.add_row(*row)
    Console(width=120).print(table)


def _cell(value: Any) -> str:
    return f"{value:,.0f}".replace(",", " ") if isinstance(value, float) else str(value)


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="bench_loading")
def main(cfg: DictConfig) -> None:
    """Run the benchmark and print its tables."""
    try:
        report = bench(cfg)
    except MISTAKES as error:
        sys.exit(f"bench_loading: {error}")
    show(report["ingest"], INGESTED)
    show(report["clips"], CLIPS)
    print(f"tables and figure: {cfg.out}")
