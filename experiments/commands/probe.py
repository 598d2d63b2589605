"""What frozen features know of the hand: `python experiments/probe.py checkpoint=runs/vjepa2_small/checkpoint`.

A probe reads the gripper's position (base frame, m) out of single frames. It is fitted on some labs and judged on
others, which the encoder did not see either, for the trained encoder, for the same encoder with fresh weights, and for
bare pixels. It prints a table and leaves probe.json and probe.png. `encoder=vjepa2_vitl hub=FOLDER "cameras=[left]"`
probes a released encoder in place of a checkpoint's.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
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
from jepa_mpc.face.evaluation.feature_probes import READERS, Samples, judge
from jepa_mpc.face.evaluation.feature_sources import Encode, FeatureSource, of_checkpoint, pixels, released
from jepa_mpc.face.training.distributed import device_of
from jepa_mpc.face.training.pretrained import is_released
from jepa_mpc.files import write_json
from jepa_mpc.places import CONFIGS
from jepa_mpc.reporting.saving import save_figure
from jepa_mpc.runs.run_folder import claim_run
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.bank import FrameBank, load_bank

MISTAKES = (BadCheckpoint, BadEpisode, MissingPackage, UnknownName, ValueError, OSError)
FREE = ("out", "threads", "device")  # may differ in one folder
HAND = slice(-6, -3)
"""Where proprioception has the hand's position."""

Row = dict[str, str | int | float]


def samples(bank: FrameBank, encode: Encode, count: int, *, seed: int, side: str) -> Samples:
    """Frames drawn evenly from a bank, encoded each by itself; the same for every encoder."""
    drawn = bank.sample(count, 1, generator=generator(seed, "probe frames", side))
    return Samples(tokens=encode(drawn["frames"][:, 0]), places=drawn["proprio"][:, 0, HAND])


def source_of(cfg: DictConfig) -> FeatureSource:
    """What is probed: the released encoder that is named, else the checkpoint.

    Raises:
        BadCheckpoint: If it cannot be had, or encodes no frames.
    """
    device = device_of(str(cfg.device))
    if not cfg.get("encoder"):
        return of_checkpoint(cfg.checkpoint, device=device)
    if not is_released(cfg.encoder):
        raise ValueError(f"encoder={cfg.encoder._target_} has no released weights to probe: give checkpoint=FOLDER")
    options = {str(name): value for name, value in cfg.encoder.items() if name != "_target_"}
    return released(options, image=cfg.image, cells=int(cfg.cells), device=device)


def probe(cfg: DictConfig) -> list[Row]:
    """Every encoder with every probe and seed: one row each.

    Raises:
        BadCheckpoint: If there is no such encoder of frames.
        ValueError: If a released encoder is to see several cameras.
    """
    torch.set_num_threads(int(cfg.threads))
    source = source_of(cfg)
    bank = load_bank(Path(cfg.data), cameras=cfg.cameras or source.cameras)
    if cfg.get("encoder") and len(bank.cameras) != 1:
        raise ValueError(f"a released encoder sees one camera, not {', '.join(bank.cameras)}: cameras=[NAME]")
    train, held = bank.split(float(cfg.validation), generator=generator(0, "validation labs"))
    fits = {name: choose(READERS, name, "probe") for name in cfg.readers}
    rows: list[Row] = []
    runs = [(seed, name) for seed in cfg.seeds for name in ("trained", "fresh", "pixels")]
    for seed, name in tqdm(runs, desc="probe"):
        encode = {"trained": source.trained, "pixels": pixels}.get(name) or source.fresh(seed)
        inner = samples(train, encode, int(cfg.train), seed=seed, side="train")
        outer = samples(held, encode, int(cfg.held), seed=seed, side="held")
        for reader, fit in fits.items():
            scores = judge(fit(inner, generator=generator(seed, "probe", reader)), outer)
            rows.append({"encoder": name, "probe": reader, "seed": seed, **scores})
    return rows


def summary(rows: list[Row]) -> list[Row]:
    """Mean and spread over the seeds of each encoder with each probe."""
    pairs = dict.fromkeys((str(row["probe"]), str(row["encoder"])) for row in rows)
    table: list[Row] = []
    for reader, encoder in pairs:
        own = [row for row in rows if (row["probe"], row["encoder"]) == (reader, encoder)]
        line: Row = {"probe": reader, "encoder": encoder, "seeds": len(own)}
        for name in ("median_cm", "mean_cm", "r2"):
            values = [float(row[name]) for row in own]
            line |= {name: mean(values), f"{name}_std": stdev(values) if len(values) > 1 else 0.0}
        table.append(line)
    return table


def show(table: list[Row]) -> None:
    """Print it."""
    print(f"{'probe':<10} {'encoder':<8} {'median cm':>14} {'mean cm':>14} {'R2':>16}")
    for line in table:
        cells = [f"{line[name]:.2f} ± {line[name + '_std']:.2f}" for name in ("median_cm", "mean_cm")]
        fit = f"{line['r2']:.3f} ± {line['r2_std']:.3f}"
        print(f"{line['probe']:<10} {line['encoder']:<8} {cells[0]:>14} {cells[1]:>14} {fit:>16}")


def draw(table: list[Row], path: Path) -> None:
    """Bars of the mean error, with the spread over the seeds."""
    colours: Mapping[str, str] = {"trained": "#0072b2", "fresh": "#b9b6ad", "pixels": "#dedbd2"}
    readers = list(dict.fromkeys(str(line["probe"]) for line in table))
    figure = Figure(figsize=(1.4 + 2.2 * len(readers), 3.4), layout="constrained")
    axes = figure.subplots()
    for place, (name, colour) in enumerate(colours.items()):
        own = [line for line in table if line["encoder"] == name]
        at = [readers.index(str(line["probe"])) + 0.27 * (place - 1) for line in own]
        heights, spreads = ([float(line[key]) for line in own] for key in ("mean_cm", "mean_cm_std"))
        bars = axes.bar(at, heights, 0.25, yerr=spreads, color=colour, label=name, capsize=3)
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axes.set_xticks(range(len(readers)), readers)
    axes.set_ylabel("mean error in new labs, cm")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save_figure(figure, path)


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="probe")
def main(cfg: DictConfig) -> None:
    """Probe, print, and leave the files."""
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
