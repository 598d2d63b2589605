"""The headroom table: success rates with intervals, and the lead of true dynamics over each control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jepa_mpc.face.handling.state_agents import CONTROLS, TRUE
from jepa_mpc.reporting.handling_page import GRIP
from jepa_mpc.reporting.intervals import mcnemar, wilson
from jepa_mpc.reporting.saving import markdown_table

RATES = ("grasp", "reach", "place")
PLAYED = ("task", "agent", "n", "grasp", "reach with object", "place", "95 %", "CPU s per episode")
COMPARED = ("task", "true dynamics ahead of", "n", "points", "p (McNemar)")
Outcomes = Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]


def summary(outcomes: Outcomes) -> dict[str, Any]:
    """Per task and agent: episodes, rates with Wilson's 95 % interval, the gripper's score, CPU seconds."""
    tasks: dict[str, Any] = {}
    for (task, agent), cells in outcomes.items():
        if cells:
            tasks.setdefault(task, {})[agent] = _row(cells)
    return tasks


def leads(outcomes: Outcomes) -> list[dict[str, Any]]:
    """Lead of true dynamics over each control in placed objects, in points, on the episodes that both have played."""
    rows = []
    for task in dict.fromkeys(task for task, _ in outcomes):
        best = {cell["cell"]["episode"]: cell["place"] for cell in outcomes.get((task, TRUE), ())}
        for control in CONTROLS:
            other = {cell["cell"]["episode"]: cell["place"] for cell in outcomes.get((task, control), ())}
            both = sorted(best.keys() & other.keys())
            if both:
                one, two = [best[episode] for episode in both], [other[episode] for episode in both]
                points = 100 * (sum(one) - sum(two)) / len(both)
                rows.append(
                    {"task": task, "over": control, "episodes": len(both), "points": points, "p": mcnemar(one, two)}
                )
    return rows


def pick_rows(
    played: Mapping[str, Sequence[Mapping[str, Any]]], *, best: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Rates of each agent of `pick-v1`, and the lead of one over the others in grasps and places on the same episodes.

    Args:
        played: Agent -> outcomes of its episodes.
        best: The agent that the others are compared with.
    """
    rows = {agent: _row(cells) for agent, cells in played.items()}
    for row in rows.values():
        row["reach_with_object"] = row.pop("reach")
        row["wilson_95"]["reach_with_object"] = row["wilson_95"].pop("reach")
    ahead = []
    for agent, cells in played.items():
        for rate in ("grasp", "place"):
            one, two = _paired(played[best], cells, rate)
            if agent != best and one:
                points = 100 * (sum(one) - sum(two)) / len(one)
                ahead.append(
                    {"over": agent, "rate": rate, "episodes": len(one), "points": points, "p": mcnemar(one, two)}
                )
    return rows, ahead


def markdown(tasks: Mapping[str, Any], ahead: Sequence[Mapping[str, Any]]) -> str:
    """Both as Markdown tables."""
    played = []
    for task, agents in tasks.items():
        for agent, row in agents.items():
            rates = [f"{100 * row[name]:.0f} %" if name in row else "–" for name in RATES]
            low, high = (100 * end for end in row["wilson_95"]["place"])
            played.append([task, agent, row["episodes"], *rates, f"{low:.0f}–{high:.0f} %", f"{row['cpu_s']:.1f}"])
    compared = [
        [row["task"], row["over"], row["episodes"], f"{row['points']:+.0f}", f"{row['p']:.2g}"] for row in ahead
    ]
    return markdown_table(PLAYED, played) + "\n" + markdown_table(COMPARED, compared)


def _paired(
    one: Sequence[Mapping[str, Any]], two: Sequence[Mapping[str, Any]], rate: str
) -> tuple[list[bool], list[bool]]:
    """Success of two agents in the episodes that both have played."""
    first, second = (
        {(cell["cell"]["lab"], cell["cell"]["episode"]): cell[rate] for cell in each} for each in (one, two)
    )
    both = sorted(first.keys() & second.keys())
    return [first[key] for key in both], [second[key] for key in both]


def _row(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    count = len(cells)
    hits = {name: sum(bool(cell[name]) for cell in cells) for name in RATES if name in cells[0]}
    row: dict[str, Any] = {"episodes": count, **{name: number / count for name, number in hits.items()}}
    row["wilson_95"] = {name: wilson(number, count) for name, number in hits.items()}
    if "grip" in cells[0]:
        row["grip"] = {name: sum(bool(cell["grip"][name]) for cell in cells) / count for name in GRIP}
    row["broke_down"] = sum(bool(cell["error"]) for cell in cells)
    row["cpu_s"] = sum(cell["cpu_s"] for cell in cells) / count
    return row
