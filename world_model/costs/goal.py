"""Step costs of the distance to the goal; differentiable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.costs import StepCosts
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Goal, Plans, Rollout

Gap = Callable[[Tensor, Tensor], Tensor]
Metric = Callable[[Tensor], Tensor]


def absolute(latents: Annotated[Tensor, "... N D"], goal: Annotated[Tensor, "... N D"]) -> Tensor:
    """Mean absolute difference of two states: mean |z - z_goal| over tokens and width."""
    return (latents - goal).abs().mean(dim=(-2, -1))


def squared(latents: Annotated[Tensor, "... N D"], goal: Annotated[Tensor, "... N D"]) -> Tensor:
    """Squared distance of two states: |z - z_goal|^2 summed over the width, mean over the tokens."""
    return (latents - goal).square().sum(dim=-1).mean(dim=-1)


def euclidean(latents: Annotated[Tensor, "... N D"], goal: Annotated[Tensor, "... N D"]) -> Tensor:
    """Euclidean distance of two states: |z - z_goal|, mean over the tokens; its gradient is 0 where they coincide."""
    square = (latents - goal).square().sum(dim=-1)
    apart = square > 0
    return torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0).mean(dim=-1)


@dataclass(frozen=True, kw_only=True)
class GoalDistance:
    """Distance of each predicted state to the goal: d(m(z_h), m(z_goal)).

    Args:
        distance: Maps two states `... N D` to `...`: `squared`, `absolute`, `euclidean`, or a user-defined one.
        metric: Maps states `... N D` to vectors `... M` in which the distance is measured (a position head, a frozen
            pose probe); None compares the latents themselves.
    """

    distance: Gap = squared
    metric: Metric | None = None

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> StepCosts:
        """Latents B S H N D and the goal's B N D -> cost B S H.

        Raises:
            ValueError: If goal and rollout differ in B, N or D.
        """
        sizes = check_shape(rollout.latents, "B S H N D")
        check_shape(goal.latents, "B N D", B=sizes["B"], N=sizes["N"], D=sizes["D"])
        return self.distance(self._mapped(rollout.latents), self._mapped(goal.latents[:, None, None]))

    def _mapped(self, latents: Annotated[Tensor, "... N D"]) -> Tensor:
        """The states in the space of the metric, as one token each."""
        return latents if self.metric is None else self.metric(latents)[..., None, :]


@dataclass(frozen=True)
class PositionDistance:
    """Squared distance of the hand to the goal position: |m(z_h) - x_goal|^2.

    Args:
        metric: Maps states `... N D` to positions `... 3` (m).
    """

    metric: Metric

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> StepCosts:
        """Latents B S H N D -> cost B S H (m^2); a missing goal position is read from the goal's latents."""
        wanted = self.metric(goal.latents) if goal.position is None else goal.position
        return (self.metric(rollout.latents) - wanted[:, None, None]).square().sum(dim=-1)
