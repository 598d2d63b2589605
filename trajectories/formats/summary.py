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


class Spread:
    """At most a hundred evenly spread rows of an episode, picked out of its blocks.

    Args:
        length: Steps of the episode.
    """

    def __init__(self, length: int) -> None:
        self.wanted = np.linspace(0, length - 1, min(length, MAX_PICTURES)).astype(int)
        self.seen = 0

    def pick(self, block: np.ndarray) -> np.ndarray:
        """Those of the next rows that are wanted."""
        inside = (self.wanted >= self.seen) & (self.wanted < self.seen + len(block))
        picked: np.ndarray = block[self.wanted[inside] - self.seen]
        self.seen += len(block)
        return picked


class PictureSummary:
    """Statistics of pictures per channel, in [0, 1], over at most a hundred evenly spread ones.

    Args:
        length: Pictures of the episode.
    """

    def __init__(self, length: int) -> None:
        self.spread, self.counts = Spread(length), np.zeros((3, 256), dtype=np.int64)

    def add(self, pictures: np.ndarray) -> None:
        """Count the next pictures `T h w 3`."""
        for picture in self.spread.pick(pictures):
            self.counts += np.stack([np.bincount(picture[..., c].reshape(-1), minlength=256) for c in range(3)])

    def result(self) -> dict[str, Any]:
        """The statistics, as lists."""
        return _of_levels(self.counts, len(self.spread.wanted))


class DepthSummary:
    """Statistics of depth in its own unit, over at most a hundred evenly spread maps.

    Args:
        length: Maps of the episode.
    """

    def __init__(self, length: int) -> None:
        self.spread, self.kept = Spread(length), list[np.ndarray]()

    def add(self, maps: np.ndarray) -> None:
        """Keep those of the next maps `T h w` that count."""
        self.kept.append(self.spread.pick(maps))

    def result(self) -> dict[str, Any]:
        """The statistics, as lists."""
        chosen = np.concatenate(self.kept)
        found = summary(chosen.reshape(-1, 1))
        return {name: [[value]] for name, value in found.items()} | {"count": [len(chosen)]}


def _of_levels(counts: np.ndarray, pictures: int) -> dict[str, Any]:
    """Statistics of colours, from how often each level occurs `3 256`."""
    levels = np.arange(256) / 255
    shares = counts.astype(np.float64)
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
    return {name: value.reshape(3, 1, 1).tolist() for name, value in found.items()} | {"count": [pictures]}


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
