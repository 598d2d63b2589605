"""Statistics of columns in LeRobot's form: extremes, mean, deviation, count and five quantiles, per axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
MAX_PICTURES = 100


def summary(column: np.ndarray) -> dict[str, Any]:
    """Statistics of a column `T` or `T A`, as lists over A."""
    rows = column.reshape(len(column), -1).astype(np.float64)
    found = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    found |= {name: np.quantile(rows, share, axis=0) for name, share in QUANTILES.items()}
    return {name: value.tolist() for name, value in found.items()} | {"count": [len(rows)]}


def picture_summary(pictures: np.ndarray) -> dict[str, Any]:
    """Statistics of images `T h w 3` per channel, in [0, 1], over at most a hundred evenly spaced ones."""
    chosen = pictures[np.linspace(0, len(pictures) - 1, min(len(pictures), MAX_PICTURES)).astype(int)]
    levels = np.arange(256) / 255
    shares = np.stack([np.bincount(chosen[..., c].reshape(-1), minlength=256) for c in range(3)]).astype(np.float64)
    shares /= shares.sum(1, keepdims=True)
    mean = shares @ levels
    reached = shares.cumsum(1)
    found = {
        "min": levels[(shares > 0).argmax(1)],
        "max": levels[255 - (shares[:, ::-1] > 0).argmax(1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(shares @ levels**2 - mean**2, 0)),
    }
    found |= {name: levels[(reached >= share - 1e-12).argmax(1)] for name, share in QUANTILES.items()}
    return {name: value.reshape(3, 1, 1).tolist() for name, value in found.items()} | {"count": [len(chosen)]}


def depth_summary(maps: np.ndarray) -> dict[str, Any]:
    """Statistics of depth `T h w` in its own unit, over at most a hundred evenly spaced maps."""
    chosen = maps[np.linspace(0, len(maps) - 1, min(len(maps), MAX_PICTURES)).astype(int)]
    found = summary(chosen.reshape(-1, 1))
    return {name: [[value]] for name, value in found.items()} | {"count": [len(chosen)]}


def merge(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Statistics over several episodes; quantiles are means weighted by the number of steps."""
    count = np.array([found["count"][0] for found in summaries], dtype=np.float64)
    stacked = {name: np.array([found[name] for found in summaries]) for name in summaries[0] if name != "count"}
    weights = (count / count.sum()).reshape(-1, *([1] * (stacked["mean"].ndim - 1)))
    mean = (weights * stacked["mean"]).sum(0)
    spread = (weights * (stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2)).sum(0)
    found = {"min": stacked["min"].min(0), "max": stacked["max"].max(0), "mean": mean, "std": np.sqrt(spread)}
    found |= {name: (weights * stacked[name]).sum(0) for name in QUANTILES}
    return {name: value.tolist() for name, value in found.items()} | {"count": [int(count.sum())]}
