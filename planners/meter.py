"""A planner wrapper that records evaluations, best cost so far and time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import torch

from jepa_mpc.interfaces import Planner
from jepa_mpc.types import Costs, PlanRequest, PlanResult, Plans, Scores


@dataclass(kw_only=True)
class Reading:
    """The record of one search.

    Args:
        curve: After each round: plans scored so far, cost of the best of them, seconds.
        evaluations: Plans scored, as the planner and the meter count them; the larger number.
        wall_s: Wall-clock time (s).
        cpu_s: CPU time of the process (s).
        status: How the search ended.
        believed: Cost that the planner predicts for its plan.
    """

    curve: list[tuple[int, float, float]] = field(default_factory=list)
    evaluations: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    status: str = ""
    believed: float = float("nan")


class Metered:
    """Wraps a planner, for one world, and records each search.

    Args:
        planner: The planner; it sees the same costs as without the wrapper, in the precision of its plans.
    """

    def __init__(self, planner: Planner) -> None:
        self.planner = planner
        self.readings: list[Reading] = []

    def plan(self, request: PlanRequest) -> PlanResult:
        """Search and record."""
        reading, best, counted = Reading(), float("inf"), 0
        began_s, began_cpu_s = time.perf_counter(), time.process_time()

        def evaluate(plans: Plans) -> Costs | Scores:
            nonlocal best, counted
            given = request.evaluate(plans)
            if not isinstance(given, Scores):
                given = given.to(plans.dtype)  # simulators compute costs in float64
            costs = (given.costs if isinstance(given, Scores) else given).detach()
            best = min(best, float(torch.where(costs.isfinite(), costs, torch.inf).min()))
            counted += plans.shape[1]
            reading.curve.append((counted, best, time.perf_counter() - began_s))
            return given

        result = self.planner.plan(replace(request, evaluate=evaluate))
        reading.wall_s, reading.cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        reading.evaluations = max(counted, result.evaluations)
        reading.status, reading.believed = result.status[0].value, float(result.cost[0])
        self.readings.append(reading)
        return result
