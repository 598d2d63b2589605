"""Planner settings for a given budget of evaluations, measured on a cheap problem."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch

from jepa_mpc.errors import choose
from jepa_mpc.interfaces import Planner
from jepa_mpc.planners import PLANNERS, build_planner
from jepa_mpc.planners.problems import memoryless
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, PlanRequest

WIDTHS = ("num_samples", "num_elites", "num_starts", "num_refined")  # plans side by side
DEPTHS = ("num_iterations", "num_steps", "num_rounds", "num_final")  # rounds one after another
LEAST = {"num_elites": 2, "num_samples": 4}
OWN_WIDTH = {"cma", "slope"}  # the round size is fixed; a larger budget adds rounds
ATTEMPTS = 8


def evaluations_of(planner: Planner, *, box: ActionBox, horizon: int) -> int:
    """Number of plans that one search scores, counted on a problem that costs almost nothing."""
    return planner.plan(free_request(box=box, horizon=horizon)).evaluations


def needs_gradients(planner: Planner, *, box: ActionBox, horizon: int) -> str | None:
    """Why a planner cannot plan in a simulator (no gradients, no step model), or None if it can."""
    try:
        planner.plan(free_request(box=box, horizon=horizon, blind=True))
    except ValueError as error:
        return " ".join(str(error).split())
    return None


def sized(name: str, arguments: Mapping[str, Any], *, budget: int, box: ActionBox, horizon: int) -> dict[str, Any]:
    """Arguments with which a planner scores at most `budget` plans, and as close to it as its rounds allow.

    The number of rounds grows with the cube root of the budget; the plans per round use the rest.

    Raises:
        ValueError: If even the planner's smallest setting exceeds the budget.
    """
    own = evaluations_of(build_planner(name, arguments), box=box, horizon=horizon)
    depth = (budget / own) ** (1 / 3 if growing(name, WIDTHS) else 1.0)
    width, best, most, least = budget / own / depth, None, 0, math.inf
    for _ in range(ATTEMPTS):
        chosen = scaled(name, arguments, width=width, depth=depth)
        try:
            count = evaluations_of(build_planner(name, chosen), box=box, horizon=horizon)
        except ValueError:  # too small for its elites or kept plans
            width, depth = (2 * width, depth / 2) if growing(name, WIDTHS) else (width, 2 * depth)
            continue
        least = min(least, count)
        if most < count <= budget:
            best, most = chosen, count
        if 0.97 * budget <= count <= budget:
            break
        if growing(name, WIDTHS) and not _smallest(name, chosen):
            width *= 0.99 * budget / count
        else:
            depth *= 0.99 * budget / count
    if best is None:
        raise ValueError(f"planner {name} needs at least {least} evaluations, got budget={budget}")
    return best


def scaled(name: str, arguments: Mapping[str, Any], *, width: float, depth: float) -> dict[str, Any]:
    """Arguments with `width` times as many plans in a round and `depth` times as many rounds."""
    factors = dict.fromkeys(growing(name, WIDTHS), width) | dict.fromkeys(growing(name, DEPTHS), depth)
    values = _values(name, arguments)
    return {**arguments, **{key: max(LEAST.get(key, 1), round(values[key] * by)) for key, by in factors.items()}}


def growing(name: str, keys: tuple[str, ...]) -> list[str]:
    """Those of the arguments `keys` that the planner takes and that grow with its budget."""
    taken = inspect.signature(choose(PLANNERS, name, "planner")).parameters
    return [key for key in keys if key in taken and not (name in OWN_WIDTH and key in WIDTHS)]


def _values(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a planner, with its defaults filled in."""
    taken = inspect.signature(choose(PLANNERS, name, "planner")).parameters
    return {key: parameter.default for key, parameter in taken.items()} | dict(arguments)


def _smallest(name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether the rounds of a planner cannot shrink further."""
    return all(arguments[key] <= LEAST.get(key, 1) for key in growing(name, WIDTHS))


def free_request(*, box: ActionBox, horizon: int, blind: bool = False) -> PlanRequest:
    """A request whose optimum is the zero plan; with `blind`, costs carry no gradient and there is no step model."""
    target = box.clip(torch.zeros(1, horizon, box.dim))

    def evaluate(plans: torch.Tensor) -> torch.Tensor:
        costs = (plans - target[:, None]).square().sum(dim=(-2, -1))
        return costs.detach() if blind else costs

    return PlanRequest(
        evaluate=evaluate,
        box=box,
        batch=1,
        horizon=horizon,
        generator=generator(0, "free problem"),
        fallback=target,
        steps=None if blind else memoryless(evaluate, target),
    )
