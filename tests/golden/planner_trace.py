"""Kind `planner_trace`: published variants of the planners, round by round, from the noise that they drew.

The reference returns the mean of its last distribution (ours returns the best plan ever scored, which cannot be worse),
does not clip except for iCEM, and gives spreads in the unit of the actions.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from jepa_mpc.planners import ColouredNoise, EliteRefit, GradientPlanner, SamplingPlanner, SoftmaxRefit
from jepa_mpc.planners.noise import Noise
from jepa_mpc.planners.problems import Problem
from jepa_mpc.planners.refit import Refit
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, PlanRequest, PlanResult
from tests.golden.cases import Case
from tests.golden.planner_parts import NO_LIMIT, InUnits, RecordedNoise, Witness, problem_of

Settings = dict[str, Any]


def check(case: Case) -> None:
    facts = case.meta["problem"]
    problem = problem_of(facts["kind"], facts, case.under("in."))
    for name, settings in case.meta["runs"].items():
        if "optimizer_cls" in settings:
            _check_descent(case, name, settings, problem)
        else:
            _check_search(case, name, settings, problem)


def _check_search(case: Case, name: str, settings: Settings, problem: Problem) -> None:
    family = _family(name, settings)
    witness = Witness(_refit(family, settings))
    low, high = settings["box"] if family == "icem" else (-NO_LIMIT, NO_LIMIT)
    kept = min(settings.get("n_elite_keep", 5), settings["topk"]) if family == "icem" else 0
    planner = SamplingPlanner(
        refit=witness,
        noise=_noise(case, name, family, settings),
        num_samples=settings["num_samples"],
        num_iterations=settings["n_steps"],
        initial_std=settings.get("var_scale", 1.0) / ((high - low) / 2),
        num_kept=kept,
    )
    result = planner.plan(_request(problem, low, high))
    for index, (plans, costs, gaussian) in enumerate(witness.rounds):
        case.check(f"out.{name}.candidates.{index}", plans)
        case.check(f"out.{name}.cost.{index}", costs)
        if f"out.{name}.mean.{index}" in case.tensors:
            case.check(f"out.{name}.mean.{index}", gaussian.mean)
        if f"out.{name}.std.{index}" in case.tensors:
            case.check(f"out.{name}.std.{index}", gaussian.std)
    _check_end(case, name, settings, problem, witness, result)


def _check_end(
    case: Case, name: str, settings: Settings, problem: Problem, witness: Witness, result: PlanResult
) -> None:
    """The returned mean, its cost, the mean cost of the last elites; and our own answer is no worse."""
    _, costs, gaussian = witness.rounds[-1]
    cost = problem.evaluate(gaussian.mean[:, None])[:, 0]
    case.check(f"out.{name}.actions", gaussian.mean)
    case.compare(f"{name} returned cost", cost, torch.tensor(settings["returned_cost"]))
    elites = costs.sort(dim=1).values[:, : settings.get("topk") or costs.shape[1]]
    case.compare(f"{name} reported cost", elites.mean(dim=1), torch.tensor(settings["reported_costs"]))
    least = torch.stack([costs.min(dim=1).values for _, costs, _ in witness.rounds]).amin(dim=0)
    assert torch.equal(result.cost, least), f"{name}: the best plan seen is not the one returned"


def _check_descent(case: Case, name: str, settings: Settings, problem: Problem) -> None:
    make = partial(getattr(torch.optim, settings["optimizer_cls"]), **settings.get("optimizer_kwargs", {}))
    clip = settings.get("grad_clip")
    if clip is not None and "whole" not in settings.get("grad_clip_scope", "whole"):
        raise NotImplementedError(f"{name}: gradients clipped by {settings['grad_clip_scope']!r}")
    steps, last = settings["n_steps"], []
    planner = GradientPlanner(
        optimiser=partial(InUnits, make=make, half=NO_LIMIT, clip=clip),
        noise=RecordedNoise([case.tensors[f"in.{name}.noise"]]),
        num_starts=settings["num_samples"],
        num_iterations=steps + 1,
        initial_std=settings.get("var_scale", 1.0) / NO_LIMIT,
    )

    def evaluate(plans: Tensor) -> Tensor:
        costs = problem.evaluate(plans)
        last.append((plans.detach(), costs.detach()))
        return costs

    planner.plan(_request(problem, -NO_LIMIT, NO_LIMIT, evaluate=evaluate))
    plans, costs = last[-1]
    best = costs.argmin(dim=1)
    case.check(f"out.{name}.final_all", plans)
    case.check(f"out.{name}.actions", plans[torch.arange(len(best)), best])
    case.compare(f"{name} costs", costs.amin(dim=1), torch.tensor(settings["costs"]))


def _family(name: str, settings: Settings) -> str:
    if {"noise_beta", "n_elite_keep", "alpha"} & set(settings):
        return "icem"
    return "mppi" if "temperature" in settings else name.split("_")[0]


def _refit(family: str, settings: Settings) -> Refit:
    match family:
        case "cem":
            return EliteRefit(num_elites=settings["topk"], correction=1)
        case "icem":
            return EliteRefit(num_elites=settings["topk"], momentum=settings.get("alpha", 0.1), correction=1)
        case "mppi":
            return SoftmaxRefit(temperature=settings.get("temperature", 0.5), num_elites=settings["topk"])
    raise ValueError(f"unknown solver {family!r}")


def _noise(case: Case, name: str, family: str, settings: Settings) -> Noise:
    draws = [case.tensors[f"in.{name}.noise.{index}"] for index in range(settings["n_steps"])]
    if family != "icem":
        return RecordedNoise(draws)
    white = RecordedNoise([draw.transpose(2, 3) for draw in draws])  # recorded with time last
    return ColouredNoise(beta=settings.get("noise_beta", 2.0), white=white, unit="sequence")


def _request(problem: Problem, low: float, high: float, **changes: Any) -> PlanRequest:
    ones = torch.ones(problem.action_dim)
    asked: dict[str, Any] = {"evaluate": problem.evaluate, "batch": problem.batch, "horizon": problem.horizon}
    return PlanRequest(box=ActionBox(low=low * ones, high=high * ones), generator=generator(0), **asked | changes)
