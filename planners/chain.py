"""Planner after planner: each begins where the last one ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.interfaces import Planner
from core.types import PlanRequest, PlanResult, PlanStatus
from planners.search import or_fallback, standing_still


@dataclass(frozen=True)
class Chain:
    """Several planners in a row, each warm-started by the best plan so far (CEM refined by gradient steps).

    With a deadline every stage may use an equal share of the time that is left, so that no stage starves.

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
            part = stage.plan(dataclasses.replace(asked, deadline_s=share_s))
            whole = part if whole is None else _join(whole, part)
        assert whole is not None
        found = whole.cost.isfinite()
        seconds = request.clock() - started_s
        return dataclasses.replace(whole, actions=or_fallback(whole.actions, found, request), seconds=seconds)


def _with_fallback(request: PlanRequest) -> PlanRequest:
    """The request, with standing still as fallback if there is none: a later stage may still find a plan."""
    return request if request.fallback is not None else dataclasses.replace(request, fallback=standing_still(request))


def _join(first: PlanResult, second: PlanResult) -> PlanResult:
    """The better of two results for each world, with one trace over both."""
    better = _or_inf(second.cost) < _or_inf(first.cost)
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
    )


def _joined_status(first: PlanStatus, second: PlanStatus) -> PlanStatus:
    """The later stage's word, unless an earlier stage found a plan, was cut short or met invalid candidates."""
    if PlanStatus.NO_VALID in (first, second):
        return first if second is PlanStatus.NO_VALID else PlanStatus.DEGRADED
    for grave in (PlanStatus.DEADLINE, PlanStatus.DEGRADED):
        if grave in (first, second):
            return grave
    return second


def _out_of_time(whole: PlanResult, done: int, stages: int) -> PlanResult:
    """The result of the stages so far, marked as cut short."""
    lost = PlanStatus.NO_VALID
    return dataclasses.replace(
        whole,
        status=tuple(state if state is lost else PlanStatus.DEADLINE for state in whole.status),
        warnings=(*whole.warnings, f"time ran out after {done} of {stages} stages"),
    )


def _or_inf(cost: Tensor) -> Tensor:
    return torch.where(cost.isfinite(), cost, torch.inf)
