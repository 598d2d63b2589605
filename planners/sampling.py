"""The one loop of all sampling planners: propose, score, refit."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from core.types import Costs, PlanRequest, PlanResult, Plans
from planners.noise import Noise, WhiteNoise
from planners.refit import Gaussian, Refit, cheapest
from planners.search import Search, first_guess, half_width, masked, opening


@dataclass(frozen=True, kw_only=True)
class SamplingPlanner:
    """Search by drawing plans from a Gaussian, scoring them and refitting the Gaussian.

    Each round scores `num_samples` plans, in the same shape every time: the mean, the plans kept from the round before
    (in the first round instead: standing still and the caller's candidates), and random ones. All of them are clipped
    to the box; the best plan ever scored is returned.

    Args:
        refit: Makes the next Gaussian of a scored round.
        noise: Draws the spread of the candidates.
        num_samples: Plans per round (S).
        num_iterations: Rounds (I).
        initial_std: First standard deviation, as a share of half the width of the box.
        min_std: Least standard deviation, in the same unit; axes of zero width stay fixed.
        num_kept: Cheapest plans of a round that are tried again in the next.
    """

    refit: Refit
    noise: Noise = field(default_factory=WhiteNoise)
    num_samples: int = 300
    num_iterations: int = 10
    initial_std: float = 0.5
    min_std: float = 0.0
    num_kept: int = 0

    def __post_init__(self) -> None:
        least = max(self.refit.min_samples, 1 + self.num_kept)
        if self.num_samples < least or self.num_iterations < 1:
            raise ValueError(
                f"need num_iterations >= 1 and num_samples >= {least} (elites, kept plans and the mean), got "
                f"{self.num_iterations} and {self.num_samples}"
            )
        if not self.initial_std > 0 or self.min_std < 0 or self.num_kept < 0:
            raise ValueError(
                f"need initial_std > 0, min_std >= 0 and num_kept >= 0, got {self.initial_std}, {self.min_std} and "
                f"{self.num_kept}"
            )

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
        gaussian = Gaussian(mean, (self.initial_std * half).expand_as(mean))
        given = opening(request, self.num_samples)
        for _ in range(self.num_iterations):
            if search.out_of_time():
                break
            plans = self._propose(request, gaussian, given)
            costs = masked(search.judge(plans))
            gaussian = self.refit(gaussian, plans, costs)
            gaussian = Gaussian(gaussian.mean, torch.maximum(gaussian.std, self.min_std * half))
            given = self._carried_over(gaussian, plans, costs)
        return search.result(rounds=self.num_iterations)

    def _propose(self, request: PlanRequest, gaussian: Gaussian, given: Plans) -> Plans:
        """`num_samples` plans in the box: the given ones first, then random ones."""
        shape = (request.batch, self.num_samples, request.horizon, request.box.dim)
        noise = self.noise(shape, request.generator, like=request.box.low)
        drawn = gaussian.mean[:, None] + gaussian.std[:, None] * noise  # (B, S, H, A)
        return request.box.clip(torch.cat([given, drawn[:, given.shape[1] :]], dim=1))

    def _carried_over(self, gaussian: Gaussian, plans: Plans, costs: Costs) -> Plans:
        """What the next round tries as it is: the mean and the kept plans."""
        mean = gaussian.mean[:, None]
        if self.num_kept == 0:
            return mean
        return torch.cat([mean, cheapest(plans, costs, self.num_kept)[1]], dim=1)
