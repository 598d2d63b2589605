"""Plans parametrised by a few knots: any planner searches the knots; the cost sees the whole plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor

from jepa_mpc.interfaces import Planner
from jepa_mpc.planners.search import Search, first_guess, opening, standing_still
from jepa_mpc.types import Costs, Imagined, PlanRequest, PlanResult, Plans, PlanStatus, Scores, StepModel

Spline = Literal["zero", "linear", "cubic"]
Spread = Annotated[Tensor, "H K"]


@dataclass(frozen=True, kw_only=True)
class KnotPlanner:
    """Search over a few actions (knots) of a long plan and interpolate the others.

        plan = clip(W knots)

    The knots are evenly spaced, with the first at the first step. W holds the last knot ("zero"), interpolates linearly
    ("linear") or smoothly ("cubic", slopes from the neighbours). The plan is clipped after interpolation, so a cubic
    overshoot stays allowed. The first guess, the zero plan and the caller's candidates are scored unchanged; a warm
    start is fitted to the knots by least squares.

    Args:
        planner: Searches the knots.
        num_knots: Knots per plan (K); a plan of at most K steps has a knot at each step.
        spline: Interpolation between knots.

    Raises:
        ValueError: If there is no knot or the spline is unknown.
    """

    planner: Planner
    num_knots: int
    spline: Spline

    def __post_init__(self) -> None:
        if self.num_knots < 1:
            raise ValueError(f"need num_knots >= 1, got {self.num_knots}")
        if self.spline not in get_args(Spline):
            raise ValueError(f"spline must be one of {', '.join(get_args(Spline))}, got {self.spline!r}")

    def plan(self, request: PlanRequest) -> PlanResult:
        """Search within the request's budget.

        Raises:
            NoValidPlan: If no plan is valid and there is no fallback.
        """
        search = Search(request)
        if search.out_of_time():
            return search.result(rounds=1)
        num_given = 0 if request.candidates is None else request.candidates.shape[1]
        search.score(opening(request, limit=num_given + 2))
        shape = (request.horizon, min(self.num_knots, request.horizon), self.spline)
        inner = self.planner.plan(
            _over_knots(request, search, *(m.to(request.box.low) for m in _spread_and_back(*shape)))
        )
        return _cut_short(search.result(rounds=len(search.trace)), inner)


def spread(horizon: int, num_knots: int, spline: Spline) -> Spread:
    """The interpolation matrix W `H K`; its rows sum to 1."""
    if num_knots == 1 or spline == "zero":
        held = torch.arange(horizon) * num_knots // horizon
        return torch.nn.functional.one_hot(held, num_knots).double()
    place = torch.linspace(0, num_knots - 1, horizon, dtype=torch.float64)
    left = place.floor().clamp(max=num_knots - 2).long()
    share = (place - left)[:, None]
    here = torch.nn.functional.one_hot(left, num_knots).double()
    there = torch.nn.functional.one_hot(left + 1, num_knots).double()
    if spline == "linear":
        return (1 - share) * here + share * there
    slopes = _slopes(num_knots)
    square, cube = share**2, share**3
    ends = (2 * cube - 3 * square + 1) * here + (3 * square - 2 * cube) * there
    return ends + (cube - 2 * square + share) * (here @ slopes) + (cube - square) * (there @ slopes)


@lru_cache(maxsize=64)
def _spread_and_back(horizon: int, num_knots: int, spline: Spline) -> tuple[Spread, Annotated[Tensor, "K H"]]:
    """The matrix W and its pseudo-inverse, which maps a plan to the nearest knots."""
    weights = spread(horizon, num_knots, spline)
    return weights, torch.linalg.pinv(weights)


def _slopes(num_knots: int) -> Annotated[Tensor, "K K"]:
    """Slope at each knot as a linear map of the knots: central differences, one-sided at the ends."""
    after = torch.arange(num_knots).add(1).clamp(max=num_knots - 1)
    before = torch.arange(num_knots).sub(1).clamp(min=0)
    one = torch.eye(num_knots, dtype=torch.float64)
    return (one[after] - one[before]) / (after - before)[:, None]


def _over_knots(request: PlanRequest, search: Search, weights: Spread, back: Annotated[Tensor, "K H"]) -> PlanRequest:
    """The request for the inner planner: its plans are knots, and the outer search scores every full plan."""

    def whole(knots: Plans) -> Plans:
        return request.box.clip(weights @ knots)

    def evaluate(knots: Plans) -> Costs | Scores:
        scores = search.score(whole(knots))
        return scores if scores.readings.shape[-1] else scores.costs

    def onto(plans: Plans) -> Plans:
        return request.box.clip(back @ plans)

    asked = dataclasses.replace(
        request,
        evaluate=evaluate,
        horizon=weights.shape[1],
        warm_start=onto(first_guess(request)),
        candidates=None if request.candidates is None else onto(request.candidates),
        fallback=None,
        deadline_s=max(0.0, request.deadline_s - search.seconds()),
        steps=None if request.steps is None else _steps_over_knots(request.steps, whole),
    )
    return dataclasses.replace(asked, fallback=standing_still(asked))


def _steps_over_knots(steps: StepModel, whole: Callable[[Plans], Plans]) -> StepModel:
    """The step model in terms of knots; its trajectories keep the length of the plan."""

    def follow(states: Imagined, knots: Plans) -> Imagined:
        return steps.follow(states, whole(knots))

    def judge(states: Imagined, knots: Plans) -> Costs | Scores:
        return steps.judge(states, whole(knots))

    return dataclasses.replace(steps, follow=follow, imagine=lambda knots: steps.imagine(whole(knots)), judge=judge)


def _cut_short(result: PlanResult, inner: PlanResult) -> PlanResult:
    """The outer search's result, marked as cut short if the inner search ran out of time."""
    if inner.evaluations > 0 and PlanStatus.DEADLINE not in inner.status:
        return result
    graver = (PlanStatus.NO_VALID, PlanStatus.INFEASIBLE)
    return dataclasses.replace(
        result,
        status=tuple(state if state in graver else PlanStatus.DEADLINE for state in result.status),
        warnings=(*result.warnings, f"time ran out after {inner.iterations} rounds over the knots"),
    )
