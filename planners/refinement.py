"""Refinement of the elites of a sampling round by gradient steps on the cost."""

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
    """Improves some plans of a scored round and adds the tried ones to the round."""

    @property
    def min_samples(self) -> int:
        """Minimum number of plans per round."""

    @property
    def num_calls(self) -> int:
        """Cost calls per round, in addition to the round's own."""

    def __call__(
        self, search: Search, plans: Plans, scores: Scores, *, spread: Annotated[Tensor, "B 1 H A"]
    ) -> tuple[Plans, Scores]:
        """Plans B S H A and their scores in; the same with the new plans appended out.

        `spread` is the current standard deviation as a share of the initial one.
        """


@dataclass(frozen=True, kw_only=True)
class GradientRefinement:
    """Gradient steps for the cheapest plans of a round (GradCEM).

    The cheapest plans are scored with gradients: once unchanged, and after each step. Steps shrink with the spread of
    the samples. All visited positions join the round.

    Args:
        optimiser: Makes the optimiser, as in `GradientPlanner`.
        num_refined: Plans that descend in each round.
        num_steps: Gradient steps in each round.
        constraints: How constraints enter the descended cost.

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
        """The number of refined plans."""
        return self.num_refined

    @property
    def num_calls(self) -> int:
        """One for the unchanged plans, and one after each step."""
        return 1 + self.num_steps

    def __call__(
        self, search: Search, plans: Plans, scores: Scores, *, spread: Annotated[Tensor, "B 1 H A"]
    ) -> tuple[Plans, Scores]:
        """Plans B S H A and their scores in; the same with the new plans appended out.

        Raises:
            ValueError: If the cost is not differentiable with respect to the plans, or the optimiser needs a closure.
        """
        best = cheapest(plans, masked(ranked(scores)), self.num_refined)[1]
        return _joined([(plans, scores), *self._descend(search, best, spread.clamp(max=1))])

    def _descend(self, search: Search, plans: Plans, share: Tensor) -> Iterator[tuple[Plans, Scores]]:
        """Positions of plans `B E H A` after each step, with their scores; stops early at the deadline.

        Each plan takes `share` of the optimiser's step.
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
    """Concatenate several scored sets of plans."""
    plans, scores = zip(*scored, strict=True)
    costs = torch.cat([part.costs for part in scores], dim=1)
    return torch.cat(plans, dim=1), Scores(costs=costs, readings=torch.cat([part.readings for part in scores], dim=1))
