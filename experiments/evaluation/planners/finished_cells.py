"""The finished cells of a run folder, including those of other commands, and which of them are still valid."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jepa_mpc.experiments.evaluation.planners.cells import FORMAT, Cell, Outcome
from jepa_mpc.experiments.evaluation.planners.code_fingerprint import fingerprint
from jepa_mpc.plain_json import read_json_file

SHARED = ("mode", "start_seed")  # settings that all cells of a folder share
BY_TASK = ("horizon", "steps", "execute", "robot")  # settings that the cells of one task share
BY_PLANNERS = ("dynamics", "world", "effort")  # settings that the planning cells of one task share
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The finished cells of a folder.

    Args:
        outcomes: Results of the valid cells, by their keys, including those of wider studies in the folder.
        remarks: Which cells are no longer valid and why, in sentences.
    """

    outcomes: Mapping[str, Outcome]
    remarks: tuple[str, ...] = ()


def finished(cells: Sequence[Cell], folder: Path) -> Finished:
    """The finished cells of a folder that are valid for a study.

    Args:
        cells: All cells of the study.
        folder: The run folder; it may hold cells of other studies that were played under the same conditions.

    Raises:
        ValueError: If it holds cells that were played under other conditions: no table could show both.
    """
    outcomes = read(folder)
    for each in outcomes.values():
        check_conditions(each.cell, cells, folder)
    made_with = {cell.contest: (cell.kind, dict(cell.arguments)) for cell in cells}
    counting, stale, replaced = {}, Counter[str](), Counter[str]()
    for key, each in outcomes.items():
        cell = each.cell
        if each.code != fingerprint(baseline=cell.baseline):
            stale[cell.planner] += 1
        elif made_with.get(cell.contest, (cell.kind, dict(cell.arguments))) != (cell.kind, dict(cell.arguments)):
            replaced[cell.planner] += 1
        else:
            counting[key] = each
    remarks = [f"{count} runs of {name} were played by other code and do not count" for name, count in stale.items()]
    remarks += [f"{count} runs of {name} have other arguments and do not count" for name, count in replaced.items()]
    order = {cell.key: number for number, cell in enumerate(cells)}
    ordered = sorted(counting, key=lambda key: order.get(key, len(order)))  # in the study's order, then the others
    return Finished(outcomes={key: counting[key] for key in ordered}, remarks=tuple(remarks))


def check_conditions(known: Cell, cells: Sequence[Cell], folder: Path) -> None:
    """Compare the conditions of a finished cell with those of a study.

    Raises:
        ValueError: If they differ.
    """
    same_task = [cell for cell in cells if cell.task == known.task]
    planning = [cell for cell in same_task if not cell.baseline and not known.baseline]
    for group, names in ((cells, SHARED), (same_task, BY_TASK), (planning, BY_PLANNERS)):
        for name in names if group else ():
            had, wanted = getattr(known, name), getattr(group[0], name)
            if had != wanted:
                raise ValueError(
                    f"out={folder} holds runs of {known.task} with {name}={had}, this command has {name}={wanted}: "
                    "give it a folder of its own"
                )


def read(folder: Path) -> dict[str, Outcome]:
    """Results of all cells with an intact file, by their keys; a damaged file is logged and skipped."""
    found = {}
    for path in sorted((folder / "cells").glob("*.json")):
        try:
            content = read_json_file(path)
            cell = Cell(**content.pop("cell"))
            if content.pop("format") != FORMAT or content.pop("key") != cell.key:
                raise ValueError("it is the file of another cell")
            found[cell.key] = _outcome(cell, content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s is damaged (%s) and will be made again", path, error)
    return found


def _outcome(cell: Cell, content: dict[str, object]) -> Outcome:
    entries: dict[str, object] = dict(content)
    entries["cost"] = float("inf") if content["cost"] is None else content["cost"]
    curve = tuple((n, float("inf") if best is None else best, s) for n, best, s in entries.pop("curve"))  # type: ignore[attr-defined]
    for name in ("evaluations", "wall_s", "cpu_s"):
        entries[name] = tuple(entries[name])  # type: ignore[arg-type]
    return Outcome(cell=cell, curve=curve, **entries)  # type: ignore[arg-type]
