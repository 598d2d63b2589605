"""Frames ingested and clips read per CPU second of one process."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.actions import PoseDelta
from jepa_mpc.trajectories.bank import bank_of
from jepa_mpc.trajectories.buffers import Buffers
from jepa_mpc.trajectories.cache import Cache, CacheOptions
from jepa_mpc.trajectories.formats import open_log
from jepa_mpc.trajectories.ingest import ingest
from jepa_mpc.trajectories.robots import MappedLog
from jepa_mpc.trajectories.windows import Windows


def ingest_rate(log: Path, place: Path, *, image_size: int, rounds: int) -> dict[str, Any]:
    """Frames per CPU second from a log to a finished cache, including all checks and checksums.

    Args:
        log: The log.
        place: Folder of the cache; built anew in each round.
        image_size: Size of the cached images, px.
        rounds: Number of repetitions; the result is their median.
    """
    rates, walls = [], []
    for _ in range(rounds):
        shutil.rmtree(place, ignore_errors=True)
        cpu, wall = time.process_time(), time.perf_counter()
        cache = ingest(log, options=CacheOptions(image_size=image_size), place=place)
        frames = sum(cache.lengths) * len(cache.cameras)
        rates.append(frames / (time.process_time() - cpu))
        walls.append(frames / (time.perf_counter() - wall))
    size = sum(
        f.stat().st_size
        for f in ([log] if log.is_file() else log.rglob("*"))
        if f.is_file() and ".cache" not in f.parts
    )
    return {
        "frames per CPU s": statistics.median(rates), "spread": [min(rates), max(rates)],
        "frames per wall s": statistics.median(walls), "log MB": size / 1e6,
        "cache MB": sum(entry["bytes"] for entry in cache.index["files"].values()) / 1e6,
    }  # fmt: skip


def cache_rate(cache: Path, *, length: int, batch: int, seconds: float, rounds: int, fresh: bool) -> dict[str, Any]:
    """Clips per CPU second, read at random positions, as batches `B T C h w` ready for a model.

    Args:
        cache: A finished cache.
        length: Frames T of a clip.
        batch: Clips B of a batch.
        seconds: CPU time of one measurement.
        rounds: Measurements; the result is their median.
        fresh: Whether each batch gets new memory instead of that of the previous one.
    """
    bank = bank_of(Cache(cache), PoseDelta())
    stream, held = generator(0, "clips", length), None if fresh else Buffers()
    bank.frames.flatten(1)[:, ::4096].sum()  # every page is in memory and mapped, as after the first epoch

    def draw() -> int:
        return len(bank.sample(batch, length, generator=stream, into=held)["frames"])

    return _clips(draw, seconds=seconds, rounds=rounds)


def log_rate(log: Path, *, length: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Clips per CPU second read from the log itself, one after another."""
    windows = Windows(MappedLog(open_log(log)), history=1, horizon=length - 1)
    stream = generator(0, "clips", length)

    def draw() -> int:
        windows[int(torch.randint(len(windows), (1,), generator=stream))]
        return 1

    return _clips(draw, seconds=seconds, rounds=rounds)


def _clips(draw: Callable[[], int], *, seconds: float, rounds: int) -> dict[str, Any]:
    draw()
    rates = []
    for _ in range(rounds):
        count, begun = 0, time.process_time()
        while time.process_time() - begun < seconds:
            count += draw()
        rates.append(count / (time.process_time() - begun))
    return {"clips per CPU s": statistics.median(rates), "spread": [min(rates), max(rates)]}
