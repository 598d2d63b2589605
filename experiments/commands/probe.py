"""Hand and object positions in frozen features: `python experiments/probe.py checkpoint=runs/vjepa2_small/checkpoint`.

A probe reads the gripper's position (base frame, m) from single frames, and the object's where the log has it. It is
fitted on some labs and evaluated on others, which the encoder has not seen either, for the trained encoder, for the
same encoder with random weights, and for the raw input: pixels, or the points of a cloud. Scores cover all labs, and
groups of similar frames (R2 alike: at most 0 for features that encode only the appearance of a scene). It prints a
table and writes probe.json and probe.png. `encoder=vjepa2_vitl hub=FOLDER "cameras=[left]"` probes a released
encoder instead of a checkpoint's; `"labels=[0.01, 0.1, 1]"` also fits on fewer frames.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import hydra
import matplotlib
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from jepa_mpc.errors import BadCheckpoint, BadEpisode, MissingPackage, UnknownName, choose
from jepa_mpc.face.evaluation.feature_probes import READERS, judge, samples
from jepa_mpc.face.evaluation.feature_sources import PLAIN, FeatureSource, of_checkpoint, released
from jepa_mpc.face.training.distributed import device_of
from jepa_mpc.face.training.pretrained import is_released
from jepa_mpc.files import write_json
from jepa_mpc.places import CONFIGS
from jepa_mpc.reporting.saving import save_figure
from jepa_mpc.runs.run_folder import claim_run
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.bank import load_bank

MISTAKES = (BadCheckpoint, BadEpisode, MissingPackage, UnknownName, ValueError, OSError)
FREE = ("out", "threads", "device")  # may differ within one folder
KIND = ("what", "probe", "labels", "encoder")
"""The columns that identify a row of the table."""

Row = dict[str, str | int | float]


def source_of(cfg: DictConfig) -> FeatureSource:
    """The encoder to probe: the named released one, else the checkpoint's.

    Raises:
        BadCheckpoint: If it cannot be loaded, or does not encode frames.
    """
    device = device_of(str(cfg.device))
    if not cfg.get("encoder"):
        return of_checkpoint(cfg.checkpoint, device=device)
    if not is_released(cfg.encoder):
        raise ValueError(f"encoder={cfg.encoder._target_} has no released weights to probe: give checkpoint=FOLDER")
    options = {str(name): value for name, value in cfg.encoder.items() if name != "_target_"}
    return released(options, image=cfg.image, cells=int(cfg.cells), device=device)


def probe(cfg: DictConfig) -> list[Row]:
    """Every encoder with every probe and seed, for every position in the log: one row each.

    Raises:
        BadCheckpoint: If there is no such encoder of frames.
        ValueError: If a released encoder is given several cameras.
    """
    torch.set_num_threads(int(cfg.threads))
    source = source_of(cfg)
    bank = load_bank(Path(cfg.data), cameras=cfg.cameras or source.cameras)
    if cfg.get("encoder") and len(bank.cameras) != 1:
        raise ValueError(f"a released encoder sees one camera, not {', '.join(bank.cameras)}: cameras=[NAME]")
    train, held = bank.split(float(cfg.validation), generator=generator(0, "validation labs"))
    fits = {name: choose(READERS, name, "probe") for name in cfg.readers}
    rows: list[Row] = []
    runs = [(seed, name) for seed in cfg.seeds for name in ("trained", "fresh", "plain")]
    for seed, name in tqdm(runs, desc="probe"):
        encode = {"trained": source.trained, "plain": PLAIN[source.sees]}.get(name) or source.fresh(seed)
        inner = samples(train, encode, int(cfg.train), seed=seed, side="train", sees=source.sees)
        outer = samples(held, encode, int(cfg.held), seed=seed, side="held", sees=source.sees)
        for (reader, fit), what, share in product(fits.items(), inner, cfg.labels):
            predict = fit(inner[what].first(float(share)), generator=generator(seed, "probe", reader))
            asked = {"what": what, "encoder": name, "probe": reader, "labels": float(share), "seed": seed}
            rows.append({**asked, **judge(predict, outer[what])})
    return rows


def summary(rows: list[Row]) -> list[Row]:
    """Mean and spread over the seeds of each encoder with each probe and share of labels, the hand first."""
    kinds = dict.fromkeys(tuple(row[name] for name in KIND) for row in rows)
    table: list[Row] = []
    for kind in sorted(kinds, key=lambda kind: kind[0] != "hand"):
        own = [row for row in rows if tuple(row[name] for name in KIND) == kind]
        line: Row = {**dict(zip(KIND, kind, strict=True)), "seeds": len(own)}
        for name in ("median_cm", "mean_cm", "r2", "r2_alike"):
            values = [float(row[name]) for row in own]
            line |= {name: mean(values), f"{name}_std": stdev(values) if len(values) > 1 else 0.0}
        table.append(line)
    return table


def show(table: list[Row]) -> None:
    """Print it."""
    head = f"{'place':<7} {'probe':<10} {'labels':>6} {'encoder':<8}"
    print(f"{head} {'median cm':>14} {'mean cm':>14} {'R2':>16} {'R2 alike':>16}")
    for line in table:
        cells = [f"{line[name]:.2f} ± {line[name + '_std']:.2f}" for name in ("median_cm", "mean_cm")]
        cells += [f"{line[name]:.3f} ± {line[name + '_std']:.3f}" for name in ("r2", "r2_alike")]
        shown = " ".join(f"{cell:>{width}}" for cell, width in zip(cells, (14, 14, 16, 16), strict=True))
        print(f"{line['what']:<7} {line['probe']:<10} {line['labels']:>6.0%} {line['encoder']:<8} {shown}")


def draw(table: list[Row], path: Path) -> None:
    """Bars of the mean error in new labs and of R2 among similar frames, with the spread over the seeds."""
    colours: Mapping[str, str] = {"trained": "#0072b2", "fresh": "#b9b6ad", "plain": "#dedbd2"}
    kinds = list(dict.fromkeys(map(_named, table)))
    figure = Figure(figsize=(2.4 + 2.6 * len(kinds), 3.4), layout="constrained")
    for axes, key, label, form in zip(
        figure.subplots(1, 2), ("mean_cm", "r2_alike"),
        ("mean error in new labs, cm", "R² among frames that look alike"), ("%.1f", "%.2f"), strict=True,
    ):  # fmt: skip
        for place, (name, colour) in enumerate(colours.items()):
            own = [line for line in table if line["encoder"] == name]
            at = [kinds.index(_named(line)) + 0.27 * (place - 1) for line in own]
            heights, spreads = ([float(line[part]) for line in own] for part in (key, f"{key}_std"))
            bars = axes.bar(at, heights, 0.25, yerr=spreads, color=colour, label=name, capsize=3)
            axes.bar_label(bars, fmt=form, padding=3, fontsize=8)
        axes.set_xticks(range(len(kinds)), kinds)
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False)
    save_figure(figure, path)


def _named(line: Row) -> str:
    """Label of a group of bars."""
    share = "" if line["labels"] == 1 else f"\n{line['labels']:.0%} of the labels"
    return f"{line['what']}, {line['probe']}{share}"


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="probe")
def main(cfg: DictConfig) -> None:
    """Probe, print, and write the files."""
    out = Path(cfg.out)
    try:
        settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
        claim_run(out, "probe", {name: value for name, value in settings.items() if name not in FREE})
        rows = probe(cfg)
    except MISTAKES as mistake:
        sys.exit(f"probe: {mistake}")
    table = summary(rows)
    probed = (
        {"encoder": cfg.encoder.model, "hub": cfg.encoder.hub}
        if cfg.get("encoder")
        else {"checkpoint": str(cfg.checkpoint)}
    )
    write_json(out / "probe.json", {**probed, "summary": table, "rows": rows})
    matplotlib.rcParams.update({"font.size": 9})
    draw(table, out / "probe.png")
    show(table)
