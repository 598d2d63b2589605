"""The table and the figures of the ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jepa_mpc.experiments.evaluation.agents.ensemble_doubt import auroc, calibration
from jepa_mpc.experiments.evaluation.agents.wall_task import WALL
from jepa_mpc.reporting.figures import BLUE, FAINT, INK, RED, STYLE
from jepa_mpc.reporting.intervals import quantiles, wilson
from jepa_mpc.reporting.saving import save_figure

REACHED_M, NEAR_M = 0.05, 0.02
SHARES, GREYS = (0.25, 0.5, 0.75, 0.9, 1.0), ("#F3F1EC", "#E4E1D9", "#CFCABD", "#B5AE9C")
HEAD = ("variant", "episodes", "within 5 cm (Wilson 95 %)", "2 cm", "median end", "energy saved", "CPU ms", "Mode-1")
DOUBT_HEAD = ("labs", "frames", "median disagreement", "median error", "AUROC against those in range")
WALL_HEAD = ("variant", "seeds", "episodes", "reached (Wilson 95 %)", "each seed")


def row_of(name: str, outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The numbers of one variant over its episodes."""
    ends = np.array([_end(outcome) for outcome in outcomes])
    steps = [step for outcome in outcomes for step in outcome["steps"] if step]
    hits = int((ends <= REACHED_M).sum())
    low, high = wilson(hits, len(ends))
    times = np.array([ms for outcome in outcomes for ms in outcome["cpu_ms"]])
    return {
        "variant": name,
        "episodes": len(ends),
        "success": hits / len(ends),
        "low": low,
        "high": high,
        "near": float((ends <= NEAR_M).mean()),
        "median_end_m": float(quantiles(ends, [0.5])[0]),
        "energy_saved": float(np.mean([step["decrease"] for step in steps])) if steps else None,
        "cpu_ms_p50": float(np.median(times)),
        "cpu_ms_mean": float(times.mean()),
        "mode1": float(np.mean([step["reactive"] for step in steps])) if steps else None,
    }


def wall_row(name: str, outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The numbers of the wall task over its seeds."""
    rates = [float(np.mean(outcome["reached"])) for outcome in outcomes]
    count = sum(len(outcome["reached"]) for outcome in outcomes)
    hits = sum(sum(outcome["reached"]) for outcome in outcomes)
    low, high = wilson(hits, count)
    return {
        "variant": name, "seeds": len(rates), "episodes": count, "success": hits / count, "low": low, "high": high,
        "rates": rates,
    }  # fmt: skip


def doubt_rows(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The ensemble's disagreement, split by split; the first split is the in-distribution one."""
    arrays = {split: {key: np.array(values) for key, values in each.items()} for split, each in found.items()}
    inside = next(iter(arrays.values()))["disagreement"]
    return [
        {
            "split": split,
            "frames": len(each["disagreement"]),
            "disagreement_m2": float(np.median(each["disagreement"])),
            "error_m": float(np.median(each["error_m"])),
            "auroc": auroc(inside, each["disagreement"]),
        }
        for split, each in arrays.items()
    ]


def doubt_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the ensemble's table as text."""
    return (
        str(row["split"]),
        str(row["frames"]),
        f"{100 * row['disagreement_m2'] ** 0.5:.2f} cm",
        f"{100 * row['error_m']:.2f} cm",
        f"{row['auroc']:.3f}",
    )


def draw_doubts(found: Mapping[str, Mapping[str, Any]], path: Path) -> float:
    """Scatter plot of disagreement and error per frame; returns their rank correlation."""
    apart = np.concatenate([np.array(each["disagreement"]) for each in found.values()])
    error = np.concatenate([np.array(each["error_m"]) for each in found.values()])
    rank = calibration(apart, error)
    with rc_context(STYLE):
        figure = Figure(figsize=(5.4, 4.0), layout="constrained")
        axes = figure.subplots()
        for (split, each), colour in zip(found.items(), (BLUE, RED, INK, FAINT), strict=False):
            way = 100 * np.sqrt(np.maximum(np.array(each["disagreement"]), 1e-12))
            axes.plot(way, 100 * np.array(each["error_m"]), "o", ms=3.5, alpha=0.6, color=colour, label=split)
        axes.set(xscale="log", yscale="log", xlabel="disagreement (cm)", ylabel="error of the way to the goal (cm)")
        axes.set(title=f"Does it know what it does not know? Spearman {rank:.2f}")
        axes.legend(frameon=False)
        save_figure(figure, path, dpi=140)
    return rank


def cells_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the reaching table as text."""
    saved, share = row["energy_saved"], row["mode1"]
    return (
        str(row["variant"]),
        str(row["episodes"]),
        f"{row['success']:.0%} ({row['low']:.0%} - {row['high']:.0%})",
        f"{row['near']:.0%}",
        f"{100 * row['median_end_m']:.2f} cm",
        "-" if saved is None else f"{saved:.4f}",
        f"{row['cpu_ms_p50']:.0f}",
        "-" if share is None else f"{share:.0%}",
    )


def wall_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the wall's table as text."""
    return (
        str(row["variant"]),
        str(row["seeds"]),
        str(row["episodes"]),
        f"{row['success']:.0%} ({row['low']:.0%} - {row['high']:.0%})",
        ", ".join(f"{rate:.0%}" for rate in row["rates"]),
    )


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Success with its interval, and decision time with the share of Mode-1."""
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 0.5 * len(rows) + 1.5), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for place, row in enumerate(reversed(rows)):
            colour = BLUE if row["variant"] == "full" else INK
            left.plot([100 * row["low"], 100 * row["high"]], [place, place], color=colour, lw=1.8)
            left.plot(100 * row["success"], place, "o", color=colour, ms=6, mec="white")
            right.barh(place, row["cpu_ms_p50"], color=colour, alpha=0.75, height=0.55)
            if row["mode1"] is not None:
                text = f"  Mode-1 {row['mode1']:.0%}"
                right.annotate(text, (row["cpu_ms_p50"], place), va="center", color=FAINT)
        left.set_yticks(range(len(rows)), [row["variant"] for row in reversed(rows)])
        left.set(xlim=(0, 103), xlabel="episodes within 5 cm (%)", title="Success")
        right.set(xlabel="CPU ms per decision (median)", title="Time to think")
        right.margins(x=0.25)
        save_figure(figure, path, dpi=140)


def draw_wall(outcomes: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """The paths around, or into, the wall."""
    with rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(outcomes), 4.0), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(outcomes), sharex=True, sharey=True))
        for panel, (name, outcome) in zip(axes, outcomes.items(), strict=True):
            _ways(panel, outcome)
            panel.set(title=f"{name}: {np.mean(outcome['reached']):.0%}", xlabel="x (m)", aspect="equal")
        save_figure(figure, path, dpi=140)


def _ways(panel: Axes, outcome: Mapping[str, Any]) -> None:
    across, along = torch.linspace(-0.4, 0.4, 81), torch.linspace(-0.7, 1.7, 241)
    places = torch.stack(torch.meshgrid(across, along, indexing="xy"), dim=-1)
    taken = WALL.block(places)  # the movement of a step, limited by the wall
    panel.contourf(across, along, taken, levels=SHARES, colors=GREYS)
    for way, goal, reached in zip(outcome["places"], outcome["goals"], outcome["reached"], strict=False):
        x, y = zip(*way, strict=True)
        panel.plot(x, y, color=BLUE if reached else RED, lw=1, alpha=0.7)
        panel.plot(*goal, "+", color=INK, ms=7)
    panel.set_ylim(-0.7, 1.7)


def _end(outcome: Mapping[str, Any]) -> float:
    last = outcome["distances_m"][-1]
    return float("inf") if last is None or not np.isfinite(last) else float(last)
