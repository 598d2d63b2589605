"""Kind `planner_quality`: what is found with the reference's number of evaluations, on problems with a known optimum.

Ours are the shelf's covariance search for every sampling solver, however it is called, and its gradient planner for
descent. All seeds of a case run side by side, as worlds of one request. Of the reference's solvers iCEM alone keeps to
the box of [-3, 3]; the others act without bounds, and so do ours against them: where the best actions lie beyond 3, the
optimum of the case cannot be reached within it.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from jepa_mpc.interfaces import Planner
from jepa_mpc.planners import cma, gradient
from jepa_mpc.planners.problems import Problem, request_for
from jepa_mpc.seeding import generator
from tests.golden.cases import Case
from tests.golden.planner_parts import NO_LIMIT, problem_of

Finder = Callable[[str, float, str, int, int], Tensor]  # family, limit, problem, samples, rounds -> cost per world

BOUNDED = {"icem": 3.0}  # the solvers of the reference that keep to a box, and its limit
STD = 1.0  # the first spread of the reference, in the unit of the actions
RATE = 0.75  # of our descent per step, likewise
PER_WORLD = ("target", "start", "goal")


def check(case: Case) -> None:
    problems = {name: _problem(case, name) for name in case.meta["problems"]}
    for name, problem in problems.items():
        _check_definition(case, name, problem)
    found = lru_cache(_finder(problems, int(case.meta["seeds"])))
    for solver, variants in case.meta["solvers"].items():
        for variant, results in variants.items():
            _check_variant(case, f"{solver} {variant}", results, found)


def _check_variant(case: Case, name: str, results: dict[str, Any], found: Finder) -> None:
    """Never worse than mean + 2 std of the reference, and nearer to the optimum over all problems together."""
    solver = name.split()[0]
    limit, family = BOUNDED.get(solver, NO_LIMIT), "gradient" if solver == "gd" else "cma"
    gains = []
    for problem, theirs in results.items():
        ours = found(family, limit, problem, *_rounds(name))
        mean, std = torch.tensor(theirs["mean"]), torch.tensor(theirs["std"])
        if bool((ours > mean + 2 * std).any()):
            case.misses.append(f"{name} on {problem}: {ours.tolist()}, the reference {mean.tolist()} +- {std.tolist()}")
        facts = case.meta["problems"][problem]
        optimum, still = torch.tensor(facts["optimum"]), torch.tensor(facts["zero_plan"])
        floor = 1e-6 * (still - optimum)
        gains.append((((ours - optimum).clamp(min=0) + floor) / ((mean - optimum).clamp(min=0) + floor)).log())
    gain = torch.cat(gains).mean()
    if not gain < 0:
        case.misses.append(f"{name}: farther from the optimum over all problems, by a factor of {gain.exp():.3g}")


def _finder(problems: dict[str, Problem], seeds: int) -> Finder:
    def found(family: str, limit: float, name: str, samples: int, rounds: int) -> Tensor:
        """Mean cost over the seeds, for each world of the problem."""
        problem, many = problems[name], _repeated(problems[name], seeds)
        planner = _planner(family, samples, rounds, limit=limit)
        result = planner.plan(request_for(many, generator(0, family, name), limit=limit))
        assert result.evaluations <= samples * rounds
        torch.testing.assert_close(many.evaluate(result.actions[:, None])[:, 0], result.cost)
        return result.cost.view(seeds, problem.batch).mean(dim=0)

    return found


def _planner(family: str, samples: int, rounds: int, *, limit: float) -> Planner:
    """Ours with the same evaluations; a search that learns covariances divides them into more, smaller rounds."""
    if family == "gradient":
        return gradient(num_starts=samples, num_iterations=rounds, initial_std=STD / limit, learning_rate=RATE / limit)
    size = min(samples * rounds, max(16, round(math.sqrt(samples * rounds) / 3)))
    return cma(num_samples=size, num_iterations=samples * rounds // size, initial_std=STD / limit)


def _rounds(name: str) -> tuple[int, int]:
    """Samples and rounds, as the name of a variant tells them: "300x30", or "300" for one round."""
    match = re.search(r"(\d+)x(\d+)", name) or re.search(r"_(\d+)()(?:_|$)", name)
    if match is None:
        raise ValueError(f"no number of evaluations in {name!r}")
    return int(match.group(1)), int(match.group(2) or 1)


def _problem(case: Case, name: str) -> Problem:
    facts = case.meta["problems"][name]
    return problem_of(facts.get("kind", name), facts, case.under(f"in.{name}."))


def _repeated(problem: Problem, seeds: int) -> Problem:
    """The worlds of a problem, `seeds` times over."""
    assert dataclasses.is_dataclass(problem) and not isinstance(problem, type)
    own = {entry.name: getattr(problem, entry.name) for entry in dataclasses.fields(problem)}
    return dataclasses.replace(problem, **{key: torch.cat([own[key]] * seeds) for key in PER_WORLD if key in own})


def _check_definition(case: Case, name: str, problem: Problem) -> None:
    """Our problem is the reference's, at its probes, its optimum and the plans that it found."""
    case.check(f"out.{name}.probe_cost", problem.evaluate(case.tensors[f"in.{name}.probe_actions"]))
    best = problem.evaluate(case.tensors[f"out.{name}.optimum_actions"][:, None])[:, 0]
    case.check(f"out.{name}.optimum_cost", best)
    case.compare(f"{name} optimum", best, torch.tensor(case.meta["problems"][name]["optimum"]))
    case.checked |= {key for key in case.tensors if key.startswith(f"out.{name}.")}  # plans of the reference
    still = torch.zeros(problem.batch, 1, problem.horizon, problem.action_dim)
    zero = torch.tensor(case.meta["problems"][name]["zero_plan"])
    case.compare(f"{name} standing still", problem.evaluate(still)[:, 0], zero)
