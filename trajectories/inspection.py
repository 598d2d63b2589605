"""Reports the content and the faults of a log, from one pass over it, as plain records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.episode import DEPTH, EE_POSE, IMAGES, TIMESTAMP
from jepa_mpc.trajectories.formats.base import Log

Depth = Literal["ends", "all"]
BLOCK_BYTES = 1 << 26
"""Number of images that are decoded at a time."""
COUNTERS = ("frame_index", "episode_index", "task_index", "index", "done")


@dataclass(frozen=True, kw_only=True)
class FieldReport:
    """One field: its declaration and, for numbers, statistics of every axis over the intact episodes.

    Args:
        field: Shape of a step, dtype, unit and rate.
        low: Smallest value of each axis.
        mean: Mean.
        std: Standard deviation.
        high: Largest value.
    """

    field: Field
    low: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LogReport:
    """The result of `inspect_log`.

    Args:
        format: Name of the format.
        lengths: Observations of each episode.
        dt_s: Seconds between two steps, 0 if unknown.
        cameras: Names of the cameras.
        fields: A report per field.
        damaged: Number of each unreadable episode, and why.
        remarks: Data that is readable but looks wrong.
    """

    format: str
    lengths: tuple[int, ...]
    dt_s: float
    cameras: tuple[str, ...]
    fields: dict[str, FieldReport]
    damaged: dict[int, str]
    remarks: tuple[str, ...]

    @property
    def num_steps(self) -> int:
        """Observations of all episodes."""
        return sum(self.lengths)


class _Axes:
    """Running sums over the rows of one field."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, np.zeros(0), np.zeros(0)
        self.low, self.high = np.zeros(0), np.zeros(0)

    def add(self, column: np.ndarray) -> None:
        rows = column.reshape(len(column), -1).astype(np.float64)
        if not self.count:
            self.shift, self.low, self.high = rows[0], rows.min(0), rows.max(0)
            self.total, self.squares = np.zeros_like(rows[0]), np.zeros_like(rows[0])
        moved = rows - self.shift  # keeps the squares small
        self.count += len(rows)
        self.total, self.squares = self.total + moved.sum(0), self.squares + (moved**2).sum(0)
        self.low, self.high = np.minimum(self.low, rows.min(0)), np.maximum(self.high, rows.max(0))

    def report(self, field: Field) -> FieldReport:
        if not self.count:
            return FieldReport(field=field)
        mean = self.total / self.count
        std = np.sqrt(np.maximum(self.squares / self.count - mean**2, 0))
        ends = (tuple(values.tolist()) for values in (self.low, mean + self.shift, std, self.high))
        low, middle, spread, high = ends
        return FieldReport(field=field, low=low, mean=middle, std=spread, high=high)


def inspect_log(
    log: Log, *, frames: Depth = "ends", progress: Callable[[Iterable[int]], Iterable[int]] = iter
) -> LogReport:
    """Read all numbers of a log, and as many images as requested; damaged episodes are recorded, not raised.

    Args:
        log: The log.
        frames: `ends` decodes the first and last image of each episode, `all` every one.
        progress: Wraps the loop over episodes (a progress bar).

    Raises:
        ValueError: If `frames` is neither.
    """
    if frames not in ("ends", "all"):
        raise ValueError(f"frames must be 'ends' or 'all', got {frames!r}")
    images = [name for name in log.fields if name.startswith((IMAGES, DEPTH))]
    rows = [name for name in log.fields if name not in images]
    axes = {name: _Axes() for name in rows}
    damaged: dict[int, str] = {}
    steps_s: list[float] = []
    flat: dict[str, int] = dict.fromkeys(images, 0)
    for index in progress(range(len(log.lengths))):
        length = log.lengths[index]
        try:
            columns = log.read(index, 0, length, rows)
            spans = _blocks(log, length, images) if frames == "all" else sorted({(0, 1), (length - 1, length)})
            plain: dict[str, list[bool]] = {name: [] for name in images}
            for start, stop in spans if images else ():
                for name, pictures in log.read(index, start, stop, images).items():
                    plain[name].append(all(picture.max() == picture.min() for picture in pictures))
            for name, told in plain.items():
                flat[name] += int(all(told)) if frames == "all" else sum(told)
        except BadEpisode as error:
            damaged[index] = str(error)
            continue
        for name, column in columns.items():
            axes[name].add(column)
        if TIMESTAMP in columns and length > 1:
            steps_s += [float(np.diff(columns[TIMESTAMP]).min()), float(np.diff(columns[TIMESTAMP]).max())]
    fields = {name: axes[name].report(field) if name in axes else FieldReport(field=field)
              for name, field in log.fields.items()}  # fmt: skip
    return LogReport(
        format=log.format, lengths=tuple(log.lengths), dt_s=log.dt_s, cameras=log.cameras, fields=fields,
        damaged=damaged, remarks=tuple(_remarks(log, fields, steps_s, flat)),
    )  # fmt: skip


def _blocks(log: Log, length: int, images: list[str]) -> list[tuple[int, int]]:
    """Ranges of steps whose images fit into memory, for episodes of any length."""
    step_bytes = sum(math.prod(log.fields[name].shape) * np.dtype(log.fields[name].dtype).itemsize for name in images)
    count = max(1, BLOCK_BYTES // max(1, step_bytes))
    return [(start, min(start + count, length)) for start in range(0, length, count)]


def _remarks(log: Log, fields: dict[str, FieldReport], steps_s: list[float], flat: dict[str, int]) -> Iterator[str]:
    """Sentences on data that is readable but suspicious."""
    yield from log.remarks
    if log.dt_s <= 0:
        yield "the log does not say how many steps it has per second: give robot.hz=..."
    if steps_s and log.dt_s > 0 and max(abs(step - log.dt_s) for step in steps_s) > 0.2 * log.dt_s:
        yield f"timestamps are uneven: steps of {min(steps_s):.4f} to {max(steps_s):.4f} s, expected {log.dt_s:.4f} s"
    if not log.cameras:
        yield "there is no camera: nothing to learn an image model from"
    yield from (f"{name}: {count} times the images are of one colour" for name, count in flat.items() if count)
    short = sum(0 < length < 4 for length in log.lengths)
    if short:
        yield f"{short} episodes have fewer than 4 steps and give hardly a window"
    for name, report in fields.items():
        still = [axis for axis, std in enumerate(report.std) if std == 0.0]
        if still and name not in COUNTERS:
            yield f"{name}: axes {still} never change"
    pose = fields.get(EE_POSE)
    if pose is not None and pose.high:
        far, turned = (max(map(abs, (*pose.low[a:b], *pose.high[a:b]))) for a, b in ((0, 3), (3, 6)))
        if far > 10:
            yield f"{EE_POSE}: positions reach {far:.0f} m: millimetres? Set metre in the robot map"
        if turned > 6.3:
            yield f"{EE_POSE}: rotations reach {turned:.1f} rad: degrees? Set radian in the robot map"
