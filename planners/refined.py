"""Sampling whose best plans walk downhill within each round (GradCEM)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.optim import Adam

from jepa_mpc.planners.constraints import AugmentedLagrangian, Constrained, Treatment
from jepa_mpc.planners.gradient import QUICK_BETAS, Descent, OptimiserFactory, stepping_alone
from jepa_mpc.planners.noise import Noise, WhiteNoise
from jepa_mpc.planners.refit import Gaussian, Refit, cheapest
from jepa_mpc.planners.search import Search, first_guess, half_width, masked, opening, ranked
from jepa_mpc.types import PlanRequest, PlanResult, Plans, Scores


@dataclass(frozen=True, kw_only=True)
class RefinedSamplingPlanner:
    """Search by drawing plans, moving the cheapest of them down the slope of the cost, and refitting to all of them.

    Each round scores `num_samples` plans without gradients, then the `num_refined` cheapest with gradients: once more
    where they are, and after each of `num_steps` steps, which shrink as the spread of the samples does. The refit sees
    the samples and all positions that the refined plans went through. The best plan ever scored is returned.

    Args:
        refit: Makes the next Gaussian of a scored round.
        optimiser: Makes the optimiser of the descent, as in `GradientPlanner`.
        noise: Draws the spread of the candidates.
        num_samples: Plans drawn per round (S).
        num_refined: Plans that descend in each round, at most `num_samples`; all of them if it is equal.
        num_steps: Gradient steps in each round.
        num_iterations: Rounds (I).
        initial_std: First standard deviation, as a share of half the width of the box.
        min_std: Least standard deviation, in the same unit.
        constraints: What is descended where the request has constraints.

    Reference: Parthasarathy et al. 2025, arXiv:2512.09929 (one Adam step per round there).
    """

    refit: Refit
    optimiser: OptimiserFactory = field(default_factory=lambda: partial(Adam, lr=0.1, betas=QUICK_BETAS))
    noise: Noise = field(default_factory=WhiteNoise)
    num_samples: int = 128
    num_refined: int = 16
    num_steps: int = 1
    num_iterations: int = 10
    initial_std: float = 0.5
    min_std: float = 0.0
    constraints: Treatment = field(default_factory=AugmentedLagrangian)

    def __post_init__(self) -> None:
        least = max(self.refit.min_samples, self.num_refined)
        if self.num_samples < least or self.num_refined < 1 or self.num_steps < 1 or self.num_iterations < 1:
            raise ValueError(
                f"need num_refined, num_steps and num_iterations >= 1 and num_samples >= {least} (elites, refined "
                f"plans), got {self.num_refined}, {self.num_steps}, {self.num_iterations} and {self.num_samples}"
            )
        if not self.initial_std > 0 or self.min_std < 0:
            raise ValueError(f"need initial_std > 0 and min_std >= 0, got {self.initial_std} and {self.min_std}")

    @torch.no_grad()
    def plan(self, request: PlanRequest) -> PlanResult:
        """Search within the request's budget.

        Raises:
            ValueError: If the cost is not differentiable with respect to the plans, has another shape than `B S`, the
                caller's candidates do not fit, or the optimiser needs a closure.
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
            scores = search.score(plans)
            best = cheapest(plans, masked(ranked(scores)), self.num_refined)[1]
            share = self._share(gaussian, half)
            plans, scores = _joined([(plans, scores), *self._descend(search, best, share)])
            gaussian = self.refit(gaussian, plans, masked(ranked(scores)))
            gaussian = gaussian.at_least(self.min_std * half)
            given = gaussian.mean[:, None]
        return search.result(rounds=self.num_iterations * (2 + self.num_steps))

    def _propose(self, request: PlanRequest, gaussian: Gaussian, given: Plans) -> Plans:
        """`num_samples` plans in the box: the given ones first, then random ones."""
        shape = (request.batch, self.num_samples, request.horizon, request.box.dim)
        noise = self.noise(shape, request.generator, like=request.box.low)
        drawn = gaussian.around(noise)
        return request.box.clip(torch.cat([given, drawn[:, given.shape[1] :]], dim=1))

    def _share(self, gaussian: Gaussian, half: Tensor) -> Tensor:
        """What the spread is now as a share of the first one, at most 1: `B 1 H A`; 0 on fixed axes."""
        first = (self.initial_std * half).expand_as(gaussian.std)
        return torch.where(first > 0, gaussian.std / first, 0.0).clamp(max=1)[:, None]

    def _descend(self, search: Search, plans: Plans, share: Tensor) -> Iterator[tuple[Plans, Scores]]:
        """The positions that plans `B E H A` go through step by step, with their scores; time may end them early.

        Each goes `share` of the optimiser's step.
        """
        descent = Descent(plans, search.request)
        optimiser = stepping_alone(self.optimiser([descent.u]))
        constrained = Constrained(self.constraints)
        for step in range(1 + self.num_steps):
            if search.out_of_time():
                return
            with torch.enable_grad():
                here = descent.plans()
                scores = search.score(here)
                costs = constrained.cost(scores)
                if step < self.num_steps:
                    descent.u.grad = descent.slope(here, costs)
                    optimiser.step()
                    descent.hold_back(share)
                    descent.project(costs)
            if step > 0:
                yield here.detach(), Scores(costs=scores.costs.detach(), readings=scores.readings.detach())


def _joined(scored: Iterable[tuple[Plans, Scores]]) -> tuple[Plans, Scores]:
    """Several scored sets of plans as one."""
    plans, scores = zip(*scored, strict=True)
    costs = torch.cat([part.costs for part in scores], dim=1)
    return torch.cat(plans, dim=1), Scores(costs=costs, readings=torch.cat([part.readings for part in scores], dim=1))
