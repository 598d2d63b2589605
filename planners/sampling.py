"""The one loop of all sampling planners: propose, score, refit."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

import torch

from jepa_mpc.planners.noise import Noise, WhiteNoise
from jepa_mpc.planners.refit import Gaussian, Refit, cheapest
from jepa_mpc.planners.search import Search, first_guess, half_width, masked, opening
from jepa_mpc.types import Costs, Plan, PlanRequest, PlanResult, Plans

TryMean = Literal["every", "last"]


@dataclass(frozen=True, kw_only=True)
class SamplingPlanner:
    """Search by drawing plans from a Gaussian, scoring them and refitting the Gaussian.

    Each round scores the mean, the plans kept from the round before (in the first round instead: the first guess,
    standing still and the caller's candidates), and random ones. All of them are clipped to the box; the best plan ever
    scored is returned. The shapes of the rounds are known beforehand and never depend on what is found.

    Args:
        refit: Makes the next Gaussian of a scored round.
        noise: Draws the spread of the candidates.
        num_samples: Plans in the first round (S).
        num_iterations: Rounds (I).
        initial_std: First standard deviation, as a share of half the width of the box.
        min_std: Least standard deviation, in the same unit; axes of zero width stay fixed.
        num_kept: Cheapest plans of a round that are tried again in the next, and returned as the result's elites.
        decay: Each round has this many times fewer plans than the one before (1: all alike), but never fewer than twice
            what the refit needs.
        try_mean: Rounds that try the mean of the Gaussian as it is: "every" one, or the "last" alone.

    Reference: Pinneri et al. 2020, arXiv:2008.06389, section 3 (kept plans, decay, the mean at last).
    """

    refit: Refit
    noise: Noise = field(default_factory=WhiteNoise)
    num_samples: int = 300
    num_iterations: int = 10
    initial_std: float = 0.5
    min_std: float = 0.0
    num_kept: int = 0
    decay: float = 1.0
    try_mean: TryMean = "every"

    def __post_init__(self) -> None:
        least = max(self.refit.min_samples, 1 + self.num_kept)
        if self.num_samples < least or self.num_iterations < 1:
            raise ValueError(
                f"need num_iterations >= 1 and num_samples >= {least} (elites, kept plans and the mean), got "
                f"{self.num_iterations} and {self.num_samples}"
            )
        if not self.initial_std > 0 or self.min_std < 0 or self.num_kept < 0 or self.decay < 1:
            raise ValueError(
                f"need initial_std > 0, min_std >= 0, num_kept >= 0 and decay >= 1, got {self.initial_std}, "
                f"{self.min_std}, {self.num_kept} and {self.decay}"
            )
        if self.try_mean not in ("every", "last"):
            raise ValueError(f"try_mean must be 'every' or 'last', got {self.try_mean!r}")

    def round_sizes(self) -> tuple[int, ...]:
        """Plans scored in each round: what a search with this planner costs."""
        floor = min(self.num_samples, 2 * max(self.refit.min_samples, 1 + self.num_kept))
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
        least = self.min_std * half
        mean = first_guess(request)
        gaussian = Gaussian(mean, (self.initial_std * half).expand_as(mean))
        given, kept = opening(request, self.num_samples), None
        for index, size in enumerate(self.round_sizes()):
            if search.out_of_time():
                break
            plans = self._propose(request, gaussian, given, size=size)
            costs = masked(search.judge(plans))
            gaussian = self.refit(gaussian, plans, costs).at_least(least).inside(request.box)
            kept = self._kept(plans, costs, search.best_plan)
            given = self._next_given(gaussian.mean, kept, index + 1)
        return dataclasses.replace(search.result(rounds=self.num_iterations), elites=kept)

    def _propose(self, request: PlanRequest, gaussian: Gaussian, given: Plans, *, size: int) -> Plans:
        """`size` plans in the box: the given ones first, then random ones."""
        box = request.box
        shape = (request.batch, size, request.horizon, box.dim)
        drawn = gaussian.around(self.noise(shape, request.generator, like=box.low))
        drawn[:, : given.shape[1]] = given
        return box.clip(drawn)

    def _kept(self, plans: Plans, costs: Costs, best: Plan) -> Plans | None:
        """The cheapest plans of a round; the best so far stands in for those that are not valid."""
        if self.num_kept == 0:
            return None
        found, kept = cheapest(plans, costs, self.num_kept)
        return torch.where(found.isfinite()[:, :, None, None], kept, best[:, None])

    def _next_given(self, mean: Plan, kept: Plans | None, index: int) -> Plans:
        """What round `index` tries as it is."""
        tried = mean[:, None] if self.try_mean == "every" or index == self.num_iterations - 1 else mean[:, None][:, :0]
        return tried if kept is None else torch.cat([tried, kept], dim=1)
