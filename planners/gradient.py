"""Gradient descent on the cost: many starts in parallel, any torch optimiser, always inside the box."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
import torch._dynamo  # optimisers load it at their first step, which may crash once an OpenGL context exists
from torch import Tensor
from torch.optim import Optimizer

from jepa_mpc.planners.constraints import AugmentedLagrangian, Constrained, Treatment
from jepa_mpc.planners.noise import Noise, WhiteNoise
from jepa_mpc.planners.search import Search, half_width, opening, starts
from jepa_mpc.types import Costs, PlanRequest, PlanResult, Plans, Streams

# A search has a few dozen steps, so Adam's default averaging times of some 10 and 1000 steps are too long.
QUICK_BETAS = (0.7, 0.9)

OptimiserFactory = Callable[[Iterable[Tensor]], Optimizer]


@dataclass(frozen=True, kw_only=True)
class GradientPlanner:
    """Search by gradient descent from several starts.

    The optimiser moves u in [-1, 1], with action = middle + half_width * u, so that its step size is a share of the box
    and does not depend on units. After each step u is projected back onto the allowed actions. A start whose cost or
    gradient is not finite skips that step and returns to its last valid position; other starts are not affected. The
    search returns the best plan ever scored.

    Args:
        optimiser: Makes the optimiser of u. It must step without a closure and treat each entry independently (as SGD
            and Adam do), so that worlds stay independent.
        num_starts: Plans that descend in parallel (S).
        num_iterations: Number of scored positions per start (I); the search takes I - 1 steps.
        initial_std: Spread of the starts around the first guess, as a share of half the width of the box.
        noise: Draws the starts.
        step_noise: Standard deviation of normal noise on u after each step but the last, in units of u. It falls
            linearly to 0 over the search and helps starts leave shallow minima.
        constraints: How constraints enter the descended cost.
    """

    optimiser: OptimiserFactory
    num_starts: int
    num_iterations: int
    initial_std: float
    noise: Noise = field(default_factory=WhiteNoise)
    step_noise: float = 0.0
    constraints: Treatment = field(default_factory=AugmentedLagrangian)

    def __post_init__(self) -> None:
        if self.num_starts < 1 or self.num_iterations < 1:
            raise ValueError(
                f"need num_starts >= 1 and num_iterations >= 1, got {self.num_starts} and {self.num_iterations}"
            )
        if not (0 <= self.initial_std < math.inf and 0 <= self.step_noise < math.inf):
            raise ValueError(
                f"need initial_std >= 0 and step_noise >= 0, both finite, got {self.initial_std} and {self.step_noise}"
            )

    def plan(self, request: PlanRequest) -> PlanResult:
        """Search within the request's budget.

        Raises:
            ValueError: If the cost is not differentiable with respect to the plans, has another shape than `B S`, the
                caller's candidates do not fit, or the optimiser needs a closure.
            NoValidPlan: If no plan is valid and there is no fallback.
        """
        search = Search(request)
        with torch.no_grad():
            given = opening(request, self.num_starts)
            descent = Descent(starts(request, given, self.num_starts, noise=self.noise, std=self.initial_std), request)
        optimiser = without_closure(self.optimiser([descent.u]))
        constrained = Constrained(self.constraints)
        for iteration in range(self.num_iterations):
            if search.out_of_time():
                break
            with torch.enable_grad():
                plans = descent.plans()
                costs = constrained.cost(search.score(plans))
                if iteration + 1 < self.num_iterations:
                    descent.u.grad = descent.slope(plans, costs)
                    optimiser.step()
                    descent.perturb(self._noise_at(iteration), request.generator)
                    descent.project(costs)
        return search.result(rounds=self.num_iterations)

    def _noise_at(self, iteration: int) -> float:
        """Size of the step noise after this iteration; 0 at the last step."""
        return self.step_noise * max(0.0, 1 - (iteration + 1) / max(1, self.num_iterations - 1))


def without_closure(optimiser: Optimizer) -> Optimizer:
    """The optimiser, checked to step from the gradient alone.

    Raises:
        ValueError: If it evaluates the cost itself (as LBFGS does): its line search would couple all plans.
    """
    closure = inspect.signature(type(optimiser).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"{type(optimiser).__name__} needs a closure and couples all plans in one step; use an optimiser that "
            "treats each entry independently, such as SGD, RMSprop, Adam or AdamW"
        )
    return optimiser


class Descent:
    """The current positions of the starts, in shares of the box.

    Plans are start + half * (u - u_at_start), so that the first positions equal the starts bit for bit.
    """

    def __init__(self, starts: Plans, request: PlanRequest) -> None:
        self.box, self.starts = request.box, starts
        self.half = half_width(request)
        middle = request.box.low + self.half
        self.origin = torch.where(self.half > 0, (starts - middle) / self.half, 0.0).clamp(-1, 1)
        self.u = self.origin.clone().requires_grad_()
        self.here = self.last_valid = self.origin

    def plans(self) -> Plans:
        """The current plans `B S H A`, as a leaf tensor for differentiation."""
        self.here = self.u.detach().clone()
        return self.box.clip(self.starts + self.half * (self.here - self.origin)).requires_grad_()

    def slope(self, plans: Plans, costs: Costs) -> Plans:
        """The gradient d cost / d u `B S H A`; zero for each start whose cost or gradient is not finite."""
        valid = costs.isfinite()
        total = torch.where(valid, costs, 0.0).sum()  # a sum over worlds and starts, so gradients stay separate
        (gradient,) = torch.autograd.grad(total, plans, allow_unused=True) if costs.requires_grad else (None,)
        if gradient is None:
            raise ValueError("the gradient planner needs a cost that is differentiable with respect to the plans")
        sound = (valid & gradient.isfinite().all(dim=-1).all(dim=-1))[..., None, None]
        return torch.where(sound, gradient * self.half, 0.0)

    @torch.no_grad()
    def damp(self, share: Tensor) -> None:
        """Keep only a share of the step taken since `plans`; `share` broadcasts over `B S H A`."""
        self.u.copy_(self.here + share * (self.u - self.here))

    @torch.no_grad()
    def perturb(self, size: float, generator: Streams) -> None:
        """Add normal noise of this size to u before projection."""
        if size > 0:
            worlds, starts, steps, axes = self.u.shape
            self.u.add_(WhiteNoise()((worlds, starts, steps, axes), generator, like=self.u), alpha=size)

    @torch.no_grad()
    def project(self, costs: Costs) -> None:
        """Project onto allowed actions after a step; starts with a non-finite cost return to their last valid u."""
        valid = costs.isfinite()[..., None, None]
        self.last_valid = torch.where(valid, self.here, self.last_valid)
        moved = self._allowed(self.u.clamp(-1, 1))
        self.u.copy_(torch.where(valid & moved.isfinite(), moved, self.last_valid))

    def _allowed(self, u: Plans) -> Plans:
        """The u of the allowed actions nearest to `u`; limits on groups of axes are not limits per axis."""
        if not self.box.groups:
            return u
        middle = self.box.low + self.half
        actions = self.box.clip(middle + self.half * u)
        return torch.where(self.half > 0, (actions - middle) / self.half, 0.0).clamp(-1, 1)
