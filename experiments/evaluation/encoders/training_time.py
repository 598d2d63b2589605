"""Process time of trainings: how many steps a budget has, and what was spent over all that a run was interrupted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from jepa_mpc.files import write_json
from jepa_mpc.world_model.training.loop import Batches, Callbacks, FitSettings, fit

TRIAL, SETTLING = 8, 3
"""Steps that are timed, and how many of them come before things have settled."""


def step_seconds(
    objective: nn.Module, draw: Batches, settings: FitSettings, *, seed: int, device: torch.device | str = "cpu"
) -> float:
    """Process time of a step (s): the median of a few, on a network that is not used any more."""
    ticks = [time.process_time()]
    few = replace(settings, steps=TRIAL, log_every=TRIAL, evaluate_every=0, save_every=0, watch_every=0)
    told = Callbacks(tick=lambda step: ticks.append(time.process_time()))
    fit(objective, draw, settings=few, seed=seed, device=device, callbacks=told)
    return median(after - before for before, after in zip(ticks[SETTLING:], ticks[SETTLING + 1 :], strict=False))


def planned_steps(folder: Path, name: str, *, minutes: float, steps: int | None, trial: Callable[[], float]) -> int:
    """The steps of a budget: those that are given, else as many as fit into the time, measured once and noted.

    Args:
        folder: The run folder.
        name: What is trained.
        minutes: Process time.
        steps: In place of it.
        trial: Measures the seconds of a step.

    Raises:
        ValueError: If there is no time.
    """
    if steps is not None:
        return int(steps)
    if not minutes > 0:
        raise ValueError(f"a training needs minutes above 0, got {minutes!r}")
    path = folder / "steps" / f"{name}.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["minutes"] == minutes:
            return int(found["steps"])
    seconds = trial()
    count = max(1, int(60 * minutes / max(seconds, 1e-9)))
    write_json(path, {"minutes": minutes, "seconds_per_step": seconds, "steps": count})
    return count


@contextmanager
def spending(path: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """Add the process time of a block to what a file has noted, however the block ends.

    Gives a function that answers `cpu_s` and `at_least`: whether an earlier block was killed, so that its time is
    missing.
    """
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cpu_s": 0.0, "at_least": False}
    lost = known["at_least"] or known.get("running", False)
    write_json(path, {"cpu_s": known["cpu_s"], "at_least": lost, "running": True})
    begun = time.process_time()

    def spent() -> dict[str, Any]:
        return {"cpu_s": round(known["cpu_s"] + time.process_time() - begun, 1), "at_least": lost}

    try:
        yield spent
    finally:
        write_json(path, {**spent(), "running": False})
