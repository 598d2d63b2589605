"""The shared loop of all sampling planners: propose, score, refine, refit."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor

from jepa_mpc.planners.noise import Noise, WhiteNoise
from jepa_mpc.planners.projection import BoxProjection, Projection
from jepa_mpc.planners.refinement import Refinement
from jepa_mpc.planners.refit import Gaussian, Refit, cheapest
from jepa_mpc.planners.search import Search, first_guess, half_width, masked, opening, ranked
from jepa_mpc.types import Costs, Plan, PlanRequest, PlanResult, Plans

TryMean = Literal["every", "last", "end"]
Answer = Literal["best", "mean"]


@dataclass(frozen=True, kw_only=True)
class SamplingPlanner:
    """Search by drawing plans from a Gaussian, scoring them and refitting the Gaussian.

    Each round scores the mean, the elites kept from the previous round (in the first round: the first guess, the zero
    plan and the caller's candidates), and random plans. All of them lie in the box. The search returns the best plan
    ever scored. Round sizes are fixed in advance and never depend on the costs.

    Args:
        refit: Computes the next Gaussian from a scored round.
        num_samples: Plans in the first round (S).
        num_iterations: Rounds (I).
        initial_std: Initial standard deviation, as a share of half the width of the box.
        noise: Draws the candidates.
        projection: Projects drawn plans onto allowed ones.
        refinement: Improves the cheapest plans of a round before the refit, if given.
        min_std: Minimum standard deviation, in the unit of `initial_std`; axes of zero width stay fixed.
        num_kept: Cheapest plans of a round that are scored again in the next one and returned as the result's elites.
        decay: Factor by which the number of plans shrinks from round to round (1: constant), down to twice the minimum
            of the refit.
        try_mean: When the mean of the Gaussian is scored unchanged: in "every" round, only in the "last" one, or
            separately at the "end", after the rounds. With "end" the first round scores the first guess only if the
            caller brings a warm start or candidates.
        answer: What is returned: the "best" plan ever scored, or the last "mean" (needs try_mean="end") where its cost
            is finite.

    Raises:
        ValueError: If a number is out of range or a choice is unknown.

    Reference: Pinneri et al. 2020, arXiv:2008.06389, section 3 (kept elites, decay, final mean).
    """

    refit: Refit
    num_samples: int
    num_iterations: int
    initial_std: float
    noise: Noise = field(default_factory=WhiteNoise)
    projection: Projection = field(default_factory=BoxProjection)
    refinement: Refinement | None = None
    min_std: float = 0.0
    num_kept: int = 0
    decay: float = 1.0
    try_mean: TryMean = "every"
    answer: Answer = "best"

    def __post_init__(self) -> None:
        least = self._min_samples()
        if self.num_samples < least or self.num_iterations < 1:
            raise ValueError(
                f"need num_iterations >= 1 and num_samples >= {least} (elites, refined plans, kept plans and the "
                f"mean), got {self.num_iterations} and {self.num_samples}"
            )
        finite = 0 < self.initial_std < math.inf and 0 <= self.min_std < math.inf and 1 <= self.decay < math.inf
        if not finite or self.num_kept < 0:
            raise ValueError(
                "need initial_std > 0, min_std >= 0, num_kept >= 0 and decay >= 1, all finite, got "
                f"{self.initial_std}, {self.min_std}, {self.num_kept} and {self.decay}"
            )
        if self.try_mean not in get_args(TryMean):
            raise ValueError(f"try_mean must be one of {get_args(TryMean)}, got {self.try_mean!r}")
        if self.answer not in get_args(Answer):
            raise ValueError(f"answer must be one of {get_args(Answer)}, got {self.answer!r}")
        if self.answer == "mean" and self.try_mean != "end":
            raise ValueError(f"answer='mean' needs try_mean='end', got try_mean={self.try_mean!r}")

    def _min_samples(self) -> int:
        refined = 0 if self.refinement is None else self.refinement.min_samples
        return max(self.refit.min_samples, refined, 1 + self.num_kept)

    def round_sizes(self) -> tuple[int, ...]:
        """Plans drawn in each round."""
        floor = min(self.num_samples, 2 * self._min_samples())
        return tuple(max(floor, int(self.num_samples / self.decay**index)) for index in range(self.num_iterations))

    @torch.no_grad()
    def plan(self, request: PlanRequest) -> PlanResult:
        """Search within the request's budget.

        Raises:
            ValueError: If the caller's candidates do not fit, or the costs have another shape than `B S`.
            NoValidPlan: If no candidate is valid and there is no fallback.
        """
        search = Search(request)
        half = half_width(request)
        mean = first_guess(request)
        first = gaussian = Gaussian(mean, (self.initial_std * half).expand_as(mean))
        given, kept = self._first_given(request), None
        for index, size in enumerate(self.round_sizes()):
            if search.out_of_time():
                break
            plans = self._propose(request, gaussian, given, size=size)
            scores = search.score(plans)
            if self.refinement is not None:
                plans, scores = self.refinement(search, plans, scores, spread=gaussian.spread_of(first))
            costs = masked(ranked(scores))
            fitted = self.refit(gaussian, plans, costs).finite_or(gaussian)
            gaussian = fitted.at_least(self.min_std * half).inside(request.box)
            kept = self._kept(plans, costs, search.best_plan)
            given = self._next_given(gaussian.mean, kept, index + 1)
        return dataclasses.replace(self._ended(search, gaussian.mean), elites=kept)

    def _num_calls(self) -> int:
        """Cost calls in a whole search."""
        refined = 0 if self.refinement is None else self.refinement.num_calls
        return self.num_iterations * (1 + refined) + (self.try_mean == "end")

    def _first_given(self, request: PlanRequest) -> Plans:
        """Plans that the first round scores unchanged."""
        plans = opening(request, self.num_samples)
        asked = request.warm_start is not None or request.candidates is not None
        return plans if asked or self.try_mean != "end" else plans[:, :0]

    def _propose(self, request: PlanRequest, gaussian: Gaussian, given: Plans, *, size: int) -> Plans:
        """`size` plans in the box: the given ones first, then random ones."""
        shape = (request.batch, size, request.horizon, request.box.dim)
        drawn = gaussian.around(self.noise(shape, request.generator, like=request.box.low))
        plans = self.projection(drawn, request.box)
        plans[:, : given.shape[1]] = given
        return plans

    def _kept(self, plans: Plans, costs: Costs, best: Plan) -> Plans | None:
        """The cheapest plans of a round; the best plan so far replaces invalid ones."""
        if self.num_kept == 0:
            return None
        found, kept = cheapest(plans, costs, self.num_kept)
        return torch.where(found.isfinite()[:, :, None, None], kept, best[:, None])

    def _next_given(self, mean: Plan, kept: Plans | None, index: int) -> Plans:
        """Plans that round `index` scores unchanged."""
        due = self.try_mean == "every" or (self.try_mean == "last" and index == self.num_iterations - 1)
        tried = mean[:, None] if due else mean[:, None][:, :0]
        return tried if kept is None else torch.cat([tried, kept], dim=1)

    def _ended(self, search: Search, mean: Plan) -> PlanResult:
        """The result, after scoring the last mean if `try_mean` asks for it."""
        if self.try_mean != "end" or search.out_of_time():
            return search.result(rounds=self._num_calls())
        plan = self.projection.of_mean(mean, search.request.box)
        cost = masked(search.judge(plan[:, None]))[:, 0]
        result = search.result(rounds=self._num_calls())
        return result if self.answer == "best" else _answering(result, plan, cost)


def _answering(result: PlanResult, plan: Plan, cost: Annotated[Tensor, "B"]) -> PlanResult:
    """The result with `plan` in place of its own, where the cost of `plan` is finite."""
    valid = cost.isfinite()
    return dataclasses.replace(
        result,
        actions=torch.where(valid[:, None, None], plan, result.actions),
        cost=torch.where(valid, cost, result.cost),
    )
