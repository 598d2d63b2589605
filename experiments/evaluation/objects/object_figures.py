"""Figures of the benchmark: slots over frames, errors by mask, results of pushes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from jepa_mpc.files import atomic_file
from jepa_mpc.reporting.contact_sheet import Tile, contact_sheet
from jepa_mpc.reporting.figures import BLUE, RED, STYLE
from jepa_mpc.reporting.saving import save_figure

TINTS = {"objects": BLUE, "tokens": RED, "none": "#8A8F98"}
PANELS = (
    ("future_mm", "after a meeting [mm]"),
    ("unseen_mm", "a puck that is not seen [mm]"),
    ("edges_auroc", "who acts on whom [area under ROC]"),
)


STILL = {"future_mm": "still_mm", "unseen_mm": "unseen_still_mm"}
"""Error of the static prediction: a dotted line."""


def draw_slots(frames: Tensor, masks: Tensor, path: Path) -> None:
    """Frames of some videos `B T 3 h w`, each row above the slots with the largest mask per pixel (`B T N h w`)."""
    colours = (255 * colormaps["tab10"](np.arange(masks.shape[2]))[:, :3]).astype(np.uint8)
    won = colours[masks.argmax(dim=2).numpy()]  # (B, T, h, w, 3)
    shown = frames.permute(0, 1, 3, 4, 2).numpy()
    rows = [np.concatenate([_strip(video), _strip(slots)]) for video, slots in zip(shown, won, strict=True)]
    _save(np.concatenate(rows), path, scale=2)


def draw_scores(rows: Sequence[Mapping[str, Any]], path: Path, *, source: str) -> None:
    """One panel per score: a bar per mask and number of pucks, a dot for each seed."""
    mine = [row for row in rows if row["source"] == source]
    counts = sorted({row["pucks"] for row in mine})
    masks = [name for name in TINTS if any(row["mask"] == name for row in mine)]
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 3.4), layout="constrained")
        for axes, (key, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            for place, name in enumerate(masks):
                at = np.arange(len(counts)) + 0.27 * (place - (len(masks) - 1) / 2)
                each = [
                    [row["scores"][key] for row in mine if row["pucks"] == count and row["mask"] == name]
                    for count in counts
                ]
                axes.bar(at, [np.mean(some) for some in each], width=0.24, color=TINTS[name], alpha=0.55, label=name)
                for spot, some in zip(at, each, strict=True):
                    axes.scatter([spot] * len(some), some, color=TINTS[name], s=12, zorder=3)
            for place, count in enumerate(counts):
                still = [row["scores"][STILL[key]] for row in mine if row["pucks"] == count and key in STILL]
                axes.hlines(still[:1], place - 0.42, place + 0.42, colors="black", linestyles="dotted")
            axes.set_xticks(np.arange(len(counts)), [f"{count} pucks" for count in counts])
            axes.set_title(title, fontsize=10)
            axes.set_ylim((0.5, 1) if key == "edges_auroc" else (0, None))
        figure.axes[0].legend(frameon=False, fontsize=8, title="hidden in training", title_fontsize=8)
        save_figure(figure, path, dpi=110)


def draw_pushes(
    finals: NDArray[np.uint8], goals: NDArray[np.uint8], gaps_m: NDArray[np.float64], *, reached_m: float, path: Path
) -> None:
    """Last image beside the goal for every push, the worst first."""
    tiles = [
        Tile(
            lab=f"push {number + 1}",
            final=final.transpose(1, 2, 0),
            goal=goal.transpose(1, 2, 0),
            distance_m=float(gap),
            success=bool(gap <= reached_m),
        )
        for number, (final, goal, gap) in enumerate(zip(finals, goals, gaps_m, strict=True))
    ]
    _save(contact_sheet(tiles, columns=6, height=72), path)


def _strip(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate(list(pictures), axis=1)


def _save(picture: NDArray[np.uint8], path: Path, *, scale: int = 1) -> None:
    image = Image.fromarray(picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as draft:
        image.resize((scale * image.width, scale * image.height), Image.Resampling.NEAREST).save(draft, format="png")
