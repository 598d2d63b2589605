"""Planners in sequence: each one starts from the best plan of the previous one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_mpc.interfaces import Planner
from jepa_mpc.planners.search import or_fallback, standing_still
from jepa_mpc.types import PlanRequest, PlanResult, PlanStatus


@dataclass(frozen=True)
class Chain:
    """Several planners in a row, each warm-started by the best plan so far (CEM refined by gradient steps).

    With a deadline, every stage gets an equal share of the remaining time.

    Args:
        stages: The planners, first to last.
    """

    stages: Sequence[Planner]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("a chain needs at least one planner")

    def plan(self, request: PlanRequest) -> PlanResult:
        """Run the stages; the result carries the best plan of all, the joined trace and the summed counts.

        Raises:
            NoValidPlan: If no stage finds a valid plan and there is no fallback.
        """
        started_s = request.clock()
        first = _with_fallback(request)
        whole: PlanResult | None = None
        for index, stage in enumerate(self.stages):
            left_s = request.deadline_s - (request.clock() - started_s)
            if whole is not None and left_s <= 0:
                whole = _out_of_time(whole, index, len(self.stages))
                break
            share_s = left_s / (len(self.stages) - index)
            asked = first if whole is None else dataclasses.replace(first, warm_start=whole.actions, candidates=None)
            part = stage.plan(dataclasses.replace(asked, deadline_s=max(0.0, share_s)))
            whole = part if whole is None else _join(whole, part)
        assert whole is not None
        found = whole.cost.isfinite()
        seconds = request.clock() - started_s
        return dataclasses.replace(whole, actions=or_fallback(whole.actions, found, request), seconds=seconds)


def _with_fallback(request: PlanRequest) -> PlanRequest:
    """The request, with the zero plan as fallback if it has none: a later stage may still find a plan."""
    return request if request.fallback is not None else dataclasses.replace(request, fallback=standing_still(request))


def _join(first: PlanResult, second: PlanResult) -> PlanResult:
    """The better of two results for each world, with one trace over both."""
    better = _is_better(second, first)
    trace = torch.cat([first.trace, second.trace])
    return PlanResult(
        actions=torch.where(better[:, None, None], second.actions, first.actions),
        cost=torch.where(better, second.cost, first.cost),
        status=tuple(_joined_status(a, b) for a, b in zip(first.status, second.status, strict=True)),
        trace=trace.cummin(dim=0).values if len(trace) else trace,
        iterations=first.iterations + second.iterations,
        evaluations=first.evaluations + second.evaluations,
        num_valid=first.num_valid + second.num_valid,
        seconds=first.seconds + second.seconds,
        warnings=first.warnings + second.warnings,
        violation=_joined_violation(first, second, better),
    )


def _is_better(one: PlanResult, other: PlanResult) -> Tensor:
    """Where a result's plan beats another's `B`: by violation first, then by cost."""
    cheaper = _or_inf(one.cost) < _or_inf(other.cost)
    if one.violation is None or other.violation is None:
        return cheaper
    mine, theirs = _or_inf(one.violation), _or_inf(other.violation)
    return (mine < theirs) | ((mine == theirs) & cheaper)


def _joined_violation(first: PlanResult, second: PlanResult, better: Tensor) -> Tensor | None:
    if first.violation is None or second.violation is None:
        return first.violation if second.violation is None else second.violation
    return torch.where(better, second.violation, first.violation)


def _joined_status(first: PlanStatus, second: PlanStatus) -> PlanStatus:
    """The later stage's status, unless an earlier stage found a plan, was cut short or met invalid candidates."""
    if PlanStatus.NO_VALID in (first, second):
        return first if second is PlanStatus.NO_VALID else _no_better(second)
    if PlanStatus.INFEASIBLE in (first, second):
        return second if first is PlanStatus.INFEASIBLE else first  # the feasible plan is the better one
    for grave in (PlanStatus.DEADLINE, PlanStatus.DEGRADED):
        if grave in (first, second):
            return grave
    return second


def _no_better(status: PlanStatus) -> PlanStatus:
    """Status of a stage that follows one without a valid plan."""
    return status if status is PlanStatus.INFEASIBLE else PlanStatus.DEGRADED


def _out_of_time(whole: PlanResult, done: int, stages: int) -> PlanResult:
    """The result of the stages so far, marked as cut short."""
    lost = (PlanStatus.NO_VALID, PlanStatus.INFEASIBLE)
    return dataclasses.replace(
        whole,
        status=tuple(state if state in lost else PlanStatus.DEADLINE for state in whole.status),
        warnings=(*whole.warnings, f"time ran out after {done} of {stages} stages"),
    )


def _or_inf(cost: Tensor) -> Tensor:
    return torch.where(cost.isfinite(), cost, torch.inf)
