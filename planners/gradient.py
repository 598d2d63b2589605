"""Descent through the cost: many starts at once, any torch optimiser, always inside the box."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import torch
import torch._dynamo  # optimisers load it at their first step, which may crash once an OpenGL context exists
from torch import Tensor
from torch.optim import Adam, Optimizer

from core.types import Costs, PlanRequest, PlanResult, Plans
from planners.noise import Noise, WhiteNoise
from planners.search import Search, first_guess, half_width, opening

# A search has a few dozen steps: Adam's usual memory of some 10 and 1000 of them is too long for it.
QUICK_BETAS = (0.7, 0.9)

OptimiserFactory = Callable[[Iterable[Tensor]], Optimizer]


@dataclass(frozen=True, kw_only=True)
class GradientPlanner:
    """Search by gradient descent from several starts.

    The optimiser moves u in [-1, 1], with action = middle + half_width * u, so that its step size is a share of the box
    and units do not matter; after each step u is projected back. A start whose cost or gradient is not finite is left
    out of that step and put back to where it was last valid; it never touches another start. The best plan ever scored
    is returned.

    Args:
        optimiser: Makes the optimiser of u; it must step without a closure and treat each entry on its own (as SGD and
            Adam do) for worlds to stay independent.
        noise: Draws the spread of the starts.
        num_starts: Plans that descend side by side (S).
        num_iterations: Scored positions of each start (I); one step fewer is taken.
        initial_std: Spread of the starts about the first guess, as a share of half the width of the box.
    """

    optimiser: OptimiserFactory = field(default_factory=lambda: partial(Adam, lr=0.15, betas=QUICK_BETAS))
    noise: Noise = field(default_factory=WhiteNoise)
    num_starts: int = 16
    num_iterations: int = 30
    initial_std: float = 0.5

    def __post_init__(self) -> None:
        if self.num_starts < 1 or self.num_iterations < 1 or self.initial_std < 0:
            raise ValueError(
                f"need num_starts >= 1, num_iterations >= 1 and initial_std >= 0, got {self.num_starts}, "
                f"{self.num_iterations} and {self.initial_std}"
            )

    def plan(self, request: PlanRequest) -> PlanResult:
        """Search within the request's budget.

        Raises:
            ValueError: If the cost is not differentiable with respect to the plans, has another shape than `B S`, or
                the caller's candidates do not fit.
            NoValidPlan: If no plan is valid and there is no fallback.
        """
        search = Search(request)
        descent = _Descent(self._starts(request), request)
        optimiser = self.optimiser([descent.u])
        for iteration in range(self.num_iterations):
            if search.out_of_time():
                break
            with torch.enable_grad():
                plans = descent.plans()
                costs = search.judge(plans)
                if iteration + 1 < self.num_iterations:
                    descent.u.grad = descent.slope(plans, costs)
                    optimiser.step()
                    descent.project(costs)
        return search.result(rounds=self.num_iterations)

    @torch.no_grad()
    def _starts(self, request: PlanRequest) -> Plans:
        """The starts `B S H A`: the opening plans, then noise about the first guess."""
        given = opening(request, self.num_starts)
        shape = (request.batch, self.num_starts, request.horizon, request.box.dim)
        noise = self.noise(shape, request.generator, like=request.box.low)
        drawn = first_guess(request)[:, None] + self.initial_std * half_width(request) * noise
        return request.box.clip(torch.cat([given, drawn[:, given.shape[1] :]], dim=1))


class _Descent:
    """The moving starts, in shares of the box.

    Plans are formed as start + half * (u - u_at_start): the first positions are the starts themselves, to the last bit.
    """

    def __init__(self, starts: Plans, request: PlanRequest) -> None:
        self.box, self.starts = request.box, starts
        self.half = half_width(request)
        middle = request.box.low + self.half
        self.origin = torch.where(self.half > 0, (starts - middle) / self.half, 0.0).clamp(-1, 1)
        self.u = self.origin.clone().requires_grad_()
        self.here = self.last_valid = self.origin

    def plans(self) -> Plans:
        """The present plans `B S H A`, a leaf to differentiate by."""
        self.here = self.u.detach().clone()
        return self.box.clip(self.starts + self.half * (self.here - self.origin)).requires_grad_()

    def slope(self, plans: Plans, costs: Costs) -> Plans:
        """The slope d cost / d u `B S H A`, zero for each start where cost or gradient is not finite."""
        valid = costs.isfinite()
        total = torch.where(valid, costs, 0.0).sum()  # adds over worlds and starts: none enters another's slope
        (gradient,) = torch.autograd.grad(total, plans, allow_unused=True) if costs.requires_grad else (None,)
        if gradient is None:
            raise ValueError("the gradient planner needs a cost that is differentiable with respect to the plans")
        sound = (valid & gradient.isfinite().all(dim=-1).all(dim=-1))[..., None, None]
        return torch.where(sound, gradient * self.half, 0.0)

    @torch.no_grad()
    def project(self, costs: Costs) -> None:
        """After a step: back into the box, or to the last valid place where the cost (of `here`) was not finite."""
        valid = costs.isfinite()[..., None, None]
        self.last_valid = torch.where(valid, self.here, self.last_valid)
        moved = self.u.clamp(-1, 1)
        self.u.copy_(torch.where(valid & moved.isfinite(), moved, self.last_valid))
