"""The cells of a benchmark: one planner at one budget, one task, one start, one seed; and the file of each."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jepa_mpc.files import write_json
from jepa_mpc.reporting.record import plain

FORMAT = "planner-cell-v1"
LEARNED = "learned"
OPEN, CLOSED = "open", "closed"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The smallest unit of work.

    Args:
        task: Name of the task.
        dynamics: The planner's dynamics: a name of `envs.true_dynamics.DYNAMICS`, or "learned".
        world: Fingerprint of the learned world model, or an empty string.
        mode: "open" executes one plan open-loop, "closed" replans along an episode.
        planner: Name of the planner in the tables.
        kind: Name of the planner's builder, or of a baseline.
        arguments: Its arguments.
        budget: Number of evaluations that it was sized for, or None for its own size; baselines have none.
        horizon: Steps of a plan.
        steps: Actions of the episode.
        execute: Actions of a plan that are executed before replanning.
        start: Number of the start.
        start_seed: Seed of the list of starts.
        seed: Seed of the search.
        effort: Weight of the actions' size in the learned model's cost.
        baseline: Whether nothing is planned.
        robot: The arm, a name of `envs.robots.ROBOTS`; empty for the task's own.
    """

    task: str
    dynamics: str
    world: str = ""
    mode: str
    planner: str
    kind: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    budget: int | None = None
    horizon: int
    steps: int
    execute: int
    start: int
    start_seed: int
    seed: int
    effort: float = 0.0
    baseline: bool = False
    robot: str = ""

    @property
    def key(self) -> str:
        """A unique hash of this cell, 16 characters."""
        facts = asdict(self) if self.robot else {k: v for k, v in asdict(self).items() if k != "robot"}
        text = json.dumps({"format": FORMAT, **facts}, sort_keys=True)  # unchanged since before arms could be chosen
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def place(self) -> tuple[Any, ...]:
        """The settings that cells with comparable costs share."""
        return (self.mode, self.task, self.horizon, self.steps, self.start_seed, self.start)

    @property
    def contest(self) -> tuple[Any, ...]:
        """The settings that the cells of one row of the table share."""
        return (self.mode, self.task, self.dynamics, self.planner, self.budget)

    def path(self, folder: Path) -> Path:
        """The file of this cell in a run folder."""
        name = re.sub(r"[^a-z0-9]+", "-", f"{self.task} {self.planner}".lower()).strip("-")
        return folder / "cells" / f"{name}__start{self.start}_seed{self.seed}__{self.key}.json"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a cell.

    Args:
        cell: The cell.
        cost: The task's cost of the executed trajectory; infinite if the simulation failed.
        success: Whether the goal is reached at the end.
        ever: Whether it was reached at any time.
        solved_at_start: Whether it was reached before the first action.
        evaluations: Number of plans that each search scored.
        wall_s: Seconds of each search.
        cpu_s: CPU seconds of each search.
        statuses: Number of searches per final status.
        believed: Predicted cost of the first search's plan, in the unit of its own world, or None.
        curve: Of the first search: plans scored, best cost so far, seconds.
        commit: Commit of the code.
        code: Fingerprint of the code (see `code_fingerprint`).
    """

    cell: Cell
    cost: float
    success: bool
    ever: bool
    solved_at_start: bool
    evaluations: tuple[int, ...] = ()
    wall_s: tuple[float, ...] = ()
    cpu_s: tuple[float, ...] = ()
    statuses: Mapping[str, int] = field(default_factory=dict)
    believed: float | None = None
    curve: tuple[tuple[int, float, float], ...] = ()
    commit: str = ""
    code: str = ""

    def save(self, folder: Path) -> None:
        """Write the cell's file whole or not at all.

        Raises:
            OSError: If it cannot be written.
        """
        write_json(self.cell.path(folder), {"format": FORMAT, "key": self.cell.key, **plain(asdict(self))})
