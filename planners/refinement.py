"""What a sampling planner does with the cheapest plans of a round: move them down the slope of the cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Protocol

import torch
from torch import Tensor

from jepa_mpc.planners.constraints import AugmentedLagrangian, Constrained, Treatment
from jepa_mpc.planners.gradient import Descent, OptimiserFactory, without_closure
from jepa_mpc.planners.refit import cheapest
from jepa_mpc.planners.search import Search, masked, ranked
from jepa_mpc.types import Plans, Scores


class Refinement(Protocol):
    """Improves some plans of a scored round and adds what was tried to the round."""

    @property
    def min_samples(self) -> int:
        """Fewest plans per round that it can work with."""

    @property
    def num_calls(self) -> int:
        """Calls of the cost in each round, beside the round's own."""

    def __call__(
        self, search: Search, plans: Plans, scores: Scores, *, spread: Annotated[Tensor, "B 1 H A"]
    ) -> tuple[Plans, Scores]:
        """Plans B S H A and their scores in; the same with the new plans behind them out.

        `spread` is the present standard deviation as a share of the first one.
        """


@dataclass(frozen=True, kw_only=True)
class GradientRefinement:
    """Gradient steps for the cheapest plans of a round (GradCEM).

    The cheapest plans are scored with gradients: once more where they are, and after each step. Steps shrink as the
    spread of the samples does. All positions that the plans went through join the round.

    Args:
        optimiser: Makes the optimiser of the descent, as in `GradientPlanner`.
        num_refined: Plans that descend in each round.
        num_steps: Gradient steps in each round.
        constraints: What is descended where the request has constraints.

    Raises:
        ValueError: If a number is below 1.

    Reference: Parthasarathy et al. 2025, arXiv:2512.09929 (one Adam step per round there).
    """

    optimiser: OptimiserFactory
    num_refined: int
    num_steps: int
    constraints: Treatment = field(default_factory=AugmentedLagrangian)

    def __post_init__(self) -> None:
        if self.num_refined < 1 or self.num_steps < 1:
            raise ValueError(f"need num_refined >= 1 and num_steps >= 1, got {self.num_refined} and {self.num_steps}")

    @property
    def min_samples(self) -> int:
        """As many plans as are refined."""
        return self.num_refined

    @property
    def num_calls(self) -> int:
        """One for the plans where they are, and one after each step."""
        return 1 + self.num_steps

    def __call__(
        self, search: Search, plans: Plans, scores: Scores, *, spread: Annotated[Tensor, "B 1 H A"]
    ) -> tuple[Plans, Scores]:
        """Plans B S H A and their scores in; the same with the new plans behind them out.

        Raises:
            ValueError: If the cost is not differentiable with respect to the plans, or the optimiser needs a closure.
        """
        best = cheapest(plans, masked(ranked(scores)), self.num_refined)[1]
        return _joined([(plans, scores), *self._descend(search, best, spread.clamp(max=1))])

    def _descend(self, search: Search, plans: Plans, share: Tensor) -> Iterator[tuple[Plans, Scores]]:
        """The positions that plans `B E H A` go through step by step, with their scores; time may end them early.

        Each plan goes `share` of the optimiser's step.
        """
        descent = Descent(plans, search.request)
        optimiser = without_closure(self.optimiser([descent.u]))
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
                    descent.damp(share)
                    descent.project(costs)
            if step > 0:
                yield here.detach(), Scores(costs=scores.costs.detach(), readings=scores.readings.detach())


def _joined(scored: Iterable[tuple[Plans, Scores]]) -> tuple[Plans, Scores]:
    """Several scored sets of plans as one."""
    plans, scores = zip(*scored, strict=True)
    costs = torch.cat([part.costs for part in scores], dim=1)
    return torch.cat(plans, dim=1), Scores(costs=costs, readings=torch.cat([part.readings for part in scores], dim=1))
