"""The bookkeeping shared by all searches: validity, best so far, trace, time and result."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_mpc.planners.noise import Noise
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Costs, Plan, PlanRequest, PlanResult, Plans, PlanStatus, Scores

SETTLED_BELOW = 1e-3  # converged if the last quarter brings less than this share of the total gain


class NoValidPlan(RuntimeError):
    """No candidate has a finite cost, and the request has no fallback."""


class Search:
    """State of one search: what was scored, the best plan, and the time left.

    A cost that is NaN or infinite, of either sign, marks an invalid candidate: it is counted and never selected. If the
    request has constraints, feasible plans rank before infeasible ones, which are ranked by violation. All bookkeeping
    is per row, so worlds never influence each other.

    Args:
        request: The planning problem.
    """

    def __init__(self, request: PlanRequest) -> None:
        self.request = request
        self.started_s = request.clock()
        self.best_plan = standing_still(request)
        self.best_cost = request.box.low.new_full((request.batch,), torch.inf)
        self.best_violation: Tensor | None = None  # known once constraints are seen
        self.num_valid = torch.zeros(request.batch, dtype=torch.long, device=request.box.low.device)
        self.evaluations = 0
        self.trace: list[Tensor] = []

    def seconds(self) -> float:
        """Time since the start of the search, by the request's clock."""
        return self.request.clock() - self.started_s

    def out_of_time(self) -> bool:
        """Whether the deadline has passed; free without a deadline."""
        if self.request.deadline_s == float("inf"):
            return False
        if self.best_cost.is_cuda:
            torch.cuda.synchronize(self.best_cost.device)
        return self.seconds() >= self.request.deadline_s

    def judge(self, plans: Plans) -> Costs:
        """Evaluate plans `B S H A`, keep the best and return costs `B S` to rank them by.

        Without constraints these are the raw costs, with their gradient; with constraints see `ranked`.
        """
        return ranked(self.score(plans))

    def score(self, plans: Plans) -> Scores:
        """Evaluate plans `B S H A`, keep the best and return the raw costs and constraint values."""
        given = self.request.evaluate(plans)
        check_shape(given.costs if isinstance(given, Scores) else given, "B S", B=plans.shape[0], S=plans.shape[1])
        scores = given if isinstance(given, Scores) else without_constraints(given)
        self._remember(plans.detach(), scores)
        return scores

    def _remember(self, plans: Plans, scores: Scores) -> None:
        costs, violation = masked(scores.costs.detach()), None
        if scores.readings.shape[-1] > 0:
            violation = violations(scores)
            costs = torch.where(violation.isfinite(), costs, torch.inf)
            violation = torch.where(costs.isfinite(), violation, torch.inf)
        self.num_valid = self.num_valid + (costs < torch.inf).sum(dim=1)
        self.evaluations += plans.shape[1]
        self._keep_best(plans, costs, violation)
        self.trace.append(self._traced())

    def _keep_best(self, plans: Plans, costs: Costs, violation: Tensor | None) -> None:
        """Replace the best plan so far wherever a round found a better one."""
        if violation is not None:
            least = violation.min(dim=1, keepdim=True).values
            costs = torch.where(violation == least, costs, torch.inf)
        cost, index = costs.min(dim=1)
        better = cost < self.best_cost
        if violation is not None:
            before = torch.full_like(cost, torch.inf) if self.best_violation is None else self.best_violation
            better = (least[:, 0] < before) | ((least[:, 0] == before) & better)
            self.best_violation = torch.where(better, least[:, 0], before)
        plan = plans[torch.arange(plans.shape[0], device=plans.device), index]
        self.best_plan = torch.where(better[:, None, None], plan, self.best_plan)
        self.best_cost = torch.where(better, cost, self.best_cost)

    def _traced(self) -> Tensor:
        """The best cost so far `B`, +inf while no feasible plan is known."""
        if self.best_violation is None:
            return self.best_cost
        return torch.where(self.best_violation > 0, torch.inf, self.best_cost)

    def result(self, *, rounds: int) -> PlanResult:
        """Close a search with a budget of `rounds` rounds.

        Raises:
            NoValidPlan: If a world has no valid candidate and the request has no fallback.
        """
        found = self.best_cost.isfinite()
        trace = torch.stack(self.trace) if self.trace else self.best_cost.new_zeros(0, self.request.batch)
        violation = self.best_violation
        status = self._status(found, trace, rounds)
        return PlanResult(
            actions=or_fallback(self.best_plan, found, self.request),
            cost=torch.where(found, self.best_cost, torch.nan),
            status=status,
            trace=trace,
            iterations=len(self.trace),
            evaluations=self.evaluations,
            num_valid=self.num_valid,
            seconds=self.seconds(),
            warnings=self._warnings(status, rounds),
            violation=None if violation is None else torch.where(found, violation, torch.nan),
        )

    def _status(self, found: Tensor, trace: Tensor, rounds: int) -> tuple[PlanStatus, ...]:
        """One status per world, the most severe that applies; the only place that synchronises with the device."""
        stopped = len(self.trace) < rounds
        broken = torch.zeros_like(found) if self.best_violation is None else self.best_violation > 0
        flags = (found, broken, self.num_valid < self.evaluations, settled(trace))
        rows = torch.stack(flags, dim=1).tolist()
        return tuple(_gravest(found=f, broken=b, stopped=stopped, degraded=d, converged=c) for f, b, d, c in rows)

    def _warnings(self, status: tuple[PlanStatus, ...], rounds: int) -> tuple[str, ...]:
        warnings = []
        if len(self.trace) < rounds:
            warnings.append(f"time ran out after {len(self.trace)} of {rounds} rounds")
        counts = self.num_valid.tolist()
        if self.evaluations and min(counts) < self.evaluations:
            worlds = [world for world, count in enumerate(counts) if count < self.evaluations]
            fewest = f"at least {min(counts)} of {self.evaluations} candidates were valid"
            warnings.append(f"some costs were not finite in worlds {worlds}: {fewest}")
        broken = [world for world, state in enumerate(status) if state is PlanStatus.INFEASIBLE]
        if broken:
            warnings.append(f"no plan met the constraints in worlds {broken}: returned the least violating plan")
        lost = [world for world, state in enumerate(status) if state is PlanStatus.NO_VALID]
        if lost:
            warnings.append(f"no valid plan in worlds {lost}: returned the fallback")
        return tuple(warnings)


def without_constraints(costs: Costs) -> Scores:
    """Costs `B S` as scores with no constraint readings."""
    return Scores(costs=costs, readings=costs.new_zeros(*costs.shape, 0))


def violations(scores: Scores) -> Costs:
    """Sum of the positive constraint values of each plan `B S`; +inf where a value is not finite."""
    readings = scores.readings.detach()
    total = readings.clamp(min=0).sum(dim=-1)
    return torch.where(readings.isfinite().all(dim=-1), total, torch.inf)


def ranked(scores: Scores) -> Costs:
    """One cost per plan `B S` that ranks feasible plans by cost and all others after them, by violation.

    Feasible plans keep their cost. In a world with feasible plans, the others rank after the most expensive of them in
    equal steps; in a world without any, the violation is the cost. Invalid plans get +inf. Without constraints the
    costs are returned unchanged.
    """
    if scores.readings.shape[-1] == 0:
        return scores.costs
    violation, costs = violations(scores), masked(scores.costs)
    valid = violation.isfinite() & costs.isfinite()
    feasible = valid & (violation == 0)
    dearest = torch.where(feasible, costs, -torch.inf).amax(dim=1, keepdim=True)
    cheapest = torch.where(feasible, costs, torch.inf).amin(dim=1, keepdim=True)
    some = dearest.isfinite()
    span = torch.maximum(dearest - cheapest, 1e-3 * dearest.abs()).clamp(min=torch.finfo(costs.dtype).tiny)
    place = violation.argsort(dim=1, stable=True).argsort(dim=1) + 1  # 1 is the least violation
    behind = torch.where(some, dearest + span * place / place.shape[1], violation)
    return torch.where(feasible, costs, torch.where(valid, behind, torch.inf))


def masked(costs: Costs) -> Costs:
    """Costs with every non-finite value replaced by +inf (also -inf, which must not be selected)."""
    return costs.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=torch.inf)


def standing_still(request: PlanRequest) -> Plan:
    """The plan `B H A` of zero actions, clipped to the box."""
    low = request.box.low
    return request.box.clip(low.new_zeros(request.batch, request.horizon, request.box.dim))


def first_guess(request: PlanRequest) -> Plan:
    """Initial plan of a search `B H A`: the warm start, else the zero plan."""
    return standing_still(request) if request.warm_start is None else request.box.clip(request.warm_start)


def opening(request: PlanRequest, limit: int) -> Plans:
    """The plans `B S H A` that every search scores unchanged: first guess, zero plan, the caller's candidates.

    A candidate that is not finite is replaced by the first guess. The zero plan is dropped if there is no room.

    Raises:
        ValueError: If the caller's candidates leave no room within `limit`.
    """
    guess = first_guess(request)[:, None]
    given = guess[:, :0]
    if request.candidates is not None:
        usable = request.candidates.isfinite().all(dim=-1).all(dim=-1)[..., None, None]
        given = request.box.clip(torch.where(usable, request.candidates, guess))
    if given.shape[1] >= limit:
        raise ValueError(f"{given.shape[1]} candidates and the first guess do not fit into {limit} samples")
    with_still = request.warm_start is not None and given.shape[1] + 2 <= limit
    still = [standing_still(request)[:, None]] if with_still else []
    return torch.cat([guess, *still, given], dim=1)


def starts(request: PlanRequest, given: Plans, count: int, *, noise: Noise, std: float) -> Plans:
    """Initial plans `B S H A` of `count` descents: the given ones, then noise around the first guess.

    Args:
        request: The planning problem.
        given: Plans to start from unchanged, at most `count`.
        count: Number of starts S.
        noise: Draws the remaining starts.
        std: Standard deviation of the spread, as a share of half the width of the box.
    """
    shape = (request.batch, count, request.horizon, request.box.dim)
    drawn = first_guess(request)[:, None] + std * half_width(request) * noise(
        shape, request.generator, like=request.box.low
    )
    return request.box.clip(torch.cat([given, drawn[:, given.shape[1] :]], dim=1))


def half_width(request: PlanRequest) -> Tensor:
    """Half the width of the box per axis `A`: the unit of spreads and step sizes."""
    return request.box.high / 2 - request.box.low / 2  # halved first: the width of a huge box may overflow


def or_fallback(plans: Plan, found: Tensor, request: PlanRequest) -> Plan:
    """The plans `B H A` where `found` (B), the request's fallback elsewhere.

    Raises:
        NoValidPlan: If the fallback is needed and there is none.
    """
    if request.fallback is not None:
        return torch.where(found[:, None, None], plans, request.box.clip(request.fallback))
    if not all(found.tolist()):
        lost = [world for world, ok in enumerate(found.tolist()) if not ok]
        raise NoValidPlan(f"no candidate had a finite cost in worlds {lost}, and no fallback was given")
    return plans


def settled(trace: Tensor) -> Tensor:
    """Mask of the worlds `B` with almost no gain in the last quarter of a trace `I B` (needs four rounds or more)."""
    if len(trace) < 4:
        return torch.zeros(trace.shape[1], dtype=torch.bool, device=trace.device)
    late = trace[-1 - len(trace) // 4] - trace[-1]
    first = torch.where(trace.isfinite(), trace, -torch.inf).amax(dim=0)  # +inf stands until a plan is feasible
    return late <= SETTLED_BELOW * (first - trace[-1])


def _gravest(*, found: bool, broken: bool, stopped: bool, degraded: bool, converged: bool) -> PlanStatus:
    if not found:
        return PlanStatus.NO_VALID
    if broken:
        return PlanStatus.INFEASIBLE
    if stopped:
        return PlanStatus.DEADLINE
    if degraded:
        return PlanStatus.DEGRADED
    return PlanStatus.CONVERGED if converged else PlanStatus.MAX_ITER
