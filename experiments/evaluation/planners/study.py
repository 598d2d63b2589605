"""Builds the list of cells from the options; errors in them are raised before any work begins."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from jepa_mpc import envs
from jepa_mpc.envs.robots import DEFAULT
from jepa_mpc.envs.task import Task
from jepa_mpc.envs.true_dynamics import DYNAMICS, SIMULATOR
from jepa_mpc.errors import UnknownName
from jepa_mpc.experiments.evaluation.planners.cell_player import task_at
from jepa_mpc.experiments.evaluation.planners.cells import CLOSED, LEARNED, OPEN, Cell
from jepa_mpc.face.evaluation.methods import world_model_at
from jepa_mpc.face.evaluation.reach_task import robot_of
from jepa_mpc.planners import build_planner, planner_choice
from jepa_mpc.planners.budgets import needs_gradients, sized

BASELINES = ("nothing", "random", "oracle")
SHUFFLED = ("random",)  # baselines that differ from seed to seed
LEARNED_TASK = "reach-v1"
OWN_SIZE = "default"


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A planner in the tables.

    Args:
        label: Its name there.
        kind: Name of its builder.
        arguments: Its arguments.
        budgets: Evaluations that it is sized for; None keeps its own size.
    """

    label: str
    kind: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    budgets: tuple[int | None, ...] = (None,)


@dataclass(frozen=True, kw_only=True)
class Study:
    """The planned cells of a benchmark.

    Args:
        cells: All cells, in order.
        left_out: Cells that cannot be played and why, in sentences.
        checkpoint: The learned world model, if any cell plans in one.
    """

    cells: tuple[Cell, ...]
    left_out: tuple[str, ...] = ()
    checkpoint: Path | None = None


def task_name(given: str) -> str:
    """The full name of a task; without a version the newest one.

    Raises:
        UnknownName: If there is no such task; lists what exists.
    """
    if given.startswith(envs.GYM):
        return given
    versions = [name for name in envs.ENVS if re.fullmatch(rf"{re.escape(given)}-v\d+", name)]
    if given not in envs.ENVS and not versions:
        raise UnknownName("task", given, envs.ENVS)
    return given if given in envs.ENVS else max(versions, key=lambda name: int(name.rpartition("v")[2]))


def contestant(entry: str | Mapping[str, Any], configs: Path, budgets: Sequence[int | str]) -> Contestant:
    """A planner from an entry of the list: the name of a file in configs/planner, or a mapping.

    A mapping has `label`, `planner` (the file's name), optional `budgets`, and arguments that override those of the
    file.

    Raises:
        UnknownName: If there is no such file; lists what exists.
        ValueError: If a mapping has no planner, or an argument or a budget is invalid.
    """
    from omegaconf import OmegaConf

    given = {"planner": entry} if isinstance(entry, str) else dict(entry)
    if "planner" not in given:
        raise ValueError(f"an entry of planners needs the name of a planner: {given}")
    name = str(given.pop("planner"))
    files = {path.stem: path for path in (configs / "planner").glob("*.yaml")}
    if name not in files:
        raise UnknownName("planner", name, files)
    label, budgets = str(given.pop("label", name)), given.pop("budgets", budgets)
    chosen: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(files[name]), resolve=True)  # type: ignore[assignment]
    kind, own = planner_choice(chosen)
    arguments = {**own, **given}
    build_planner(kind, arguments)
    return Contestant(label=label, kind=kind, arguments=arguments, budgets=tuple(_budget(item) for item in budgets))


def study_of(options: Mapping[str, Any], *, configs: Path, shipped: Path) -> Study:
    """All cells of a benchmark.

    Args:
        options: The options of bench_planners.yaml.
        configs: Folder of the configuration files.
        shipped: The default world model.

    Raises:
        UnknownName: If a task or planner is unknown.
        ValueError: If an option is invalid, or no cell remains.
    """
    _check(options)
    contestants = [contestant(entry, configs, options["budgets"]) for entry in options["planners"]]
    labels = [each.label for each in contestants]
    if len(set(labels)) < len(labels) or set(labels) & set(BASELINES):
        raise ValueError(f"planners need names of their own, other than {', '.join(BASELINES)}: got {labels}")
    learned = options["dynamics"] == LEARNED
    checkpoint = Path(str(options["checkpoint"] or shipped)) if learned else None
    cells: list[Cell] = []
    left_out: list[str] = []
    for name in dict.fromkeys(task_name(str(given)) for given in options["tasks"]):
        if learned and name != LEARNED_TASK:
            left_out.append(f"{name}: no learned world model supports it (only {LEARNED_TASK})")
            continue
        for each in contestants:
            try:
                cells += _cells_of(each, name, options, checkpoint)
            except _Unsuited as reason:
                left_out.append(f"{each.label} on {name}: {reason}")
        cells += _baselines(name, options, checkpoint)
    if all(cell.baseline for cell in cells):
        raise ValueError(f"no planner is left to play; left out: {'; '.join(left_out)}")
    _check_reference(options["reference"], cells)
    return Study(cells=tuple(cells), left_out=tuple(left_out), checkpoint=checkpoint)


class _Unsuited(ValueError):
    """A planner cannot play a task."""


def _cells_of(each: Contestant, name: str, options: Mapping[str, Any], checkpoint: Path | None) -> list[Cell]:
    task = task_at(name, checkpoint, dynamics=options["dynamics"], robot=_robot(checkpoint))
    common = _common(task, options, checkpoint)
    horizon = common["horizon"]
    if checkpoint is None and (reason := _unsuited(each.kind, _frozen(each.arguments), name, horizon)):
        raise _Unsuited(f"it cannot plan in a simulator ({reason})")
    cells = []
    for budget in each.budgets:
        arguments = each.arguments
        if budget is not None:
            arguments = sized(each.kind, each.arguments, budget=budget, box=task.box, horizon=horizon)
        cells += [
            Cell(
                **common, planner=each.label, kind=each.kind, arguments=arguments, budget=budget, start=start, seed=seed
            )
            for start in range(options["starts"])
            for seed in range(options["seeds"])
        ]
    return cells


def _baselines(name: str, options: Mapping[str, Any], checkpoint: Path | None) -> list[Cell]:
    """The idle, random and oracle baselines; deterministic ones play each start once."""
    robot = _robot(checkpoint)
    task = task_at(name, checkpoint, robot=robot)
    common = {**_common(task, options, None), "dynamics": SIMULATOR, "effort": 0.0, "robot": robot}
    return [
        Cell(**common, planner=each, kind=each, start=start, seed=seed, baseline=True)
        for each in BASELINES
        if each in task.baselines
        for start in range(options["starts"])
        for seed in range(options["seeds"] if each in SHUFFLED else 1)
    ]


def _common(task: Task, options: Mapping[str, Any], checkpoint: Path | None) -> dict[str, Any]:
    horizon = options["horizon"] or task.horizon
    closed = options["mode"] == CLOSED
    if options["execute"] > horizon:
        raise ValueError(f"execute={options['execute']} is more than the plans of {task.name} have: horizon={horizon}")
    return {
        "task": task.name,
        "dynamics": options["dynamics"],
        "world": "" if checkpoint is None else world_model_at(checkpoint, "cpu").fingerprint,
        "mode": options["mode"],
        "horizon": horizon,
        "steps": (options["steps"] or task.budget) if closed else horizon,
        "execute": options["execute"] if closed else horizon,
        "start_seed": options["start_seed"],
        "effort": 0.0 if checkpoint is None else float(options["effort"]),
        "robot": _robot(checkpoint),
    }


def _robot(checkpoint: Path | None) -> str:
    """The arm of a learned world model, empty for the default one."""
    robot = DEFAULT if checkpoint is None else robot_of(world_model_at(checkpoint, "cpu").interface)
    return "" if robot == DEFAULT else robot


@lru_cache(maxsize=256)
def _unsuited(kind: str, arguments: tuple[tuple[str, Any], ...], name: str, horizon: int) -> str | None:
    return needs_gradients(build_planner(kind, dict(arguments)), box=task_at(name, None).box, horizon=horizon)


def _frozen(arguments: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((key, tuple(value) if isinstance(value, list) else value) for key, value in arguments.items()))


def _budget(given: int | str) -> int | None:
    if given == OWN_SIZE:
        return None
    if type(given) is not int or given < 1:
        raise ValueError(f"a budget is a number of evaluations from 1, or {OWN_SIZE!r}; got {given!r}")
    return given


def _check_reference(reference: str | None, cells: Sequence[Cell]) -> None:
    """Check that the reference has one row per task, before anything is played."""
    if reference is None:
        return
    names = sorted({cell.planner for cell in cells})
    if reference not in names:
        raise ValueError(f"the reference {reference!r} does not play; names: {', '.join(names)}")
    budgets = {cell.budget for cell in cells if cell.planner == reference}
    if len(budgets) > 1:
        raise ValueError(
            f"the reference {reference!r} must have one budget, got {len(budgets)}: give it its own, as in "
            f"{{label: {reference}, planner: ..., budgets: [default]}}"
        )


def _check(options: Mapping[str, Any]) -> None:
    for name, known in (("mode", (OPEN, CLOSED)), ("dynamics", (*DYNAMICS, LEARNED))):
        if options[name] not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {options[name]!r}")
    for name in ("starts", "seeds", "execute", "workers", "shards"):
        if type(options[name]) is not int or options[name] < 1:
            raise ValueError(f"{name} must be a whole number from 1, got {options[name]!r}")
    for name in ("horizon", "steps"):
        if options[name] is not None and (type(options[name]) is not int or options[name] < 1):
            raise ValueError(f"{name} must be a whole number from 1, or null for the task's own; got {options[name]!r}")
    if options["checkpoint"] and options["dynamics"] != LEARNED:
        raise ValueError("a checkpoint is planned in with dynamics=learned")
    if type(options["shard"]) is not int or not 0 <= options["shard"] < options["shards"]:
        raise ValueError(f"shard must be from 0 to shards - 1 = {options['shards'] - 1}, got {options['shard']!r}")
    for name in ("tasks", "planners", "budgets"):
        if isinstance(options[name], str | int) or not len(options[name]):
            raise ValueError(f"{name} must be a list, as in {name}=[a,b]; got {options[name]!r}")
