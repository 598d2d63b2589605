"""A detour around a wall: a closed-form problem where gradient descent on a whole plan gets stuck."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.types import Costs, Imagined, Plans, StepModel

Places = Annotated[Tensor, "... 2"]


@dataclass(frozen=True, kw_only=True)
class Wall:
    """A point moves in the plane; a wall across the straight line has a gap to the side.

        p += step * clip(a, -1, 1) * (1 - block(p + step * a / 2))
        block(p) = exp(-(x / thickness)^4) * sigmoid((|y - gap| - width) / softness)
        cost = |p_H - goal|^2 + effort * mean |a|^2

    Inside the wall nothing moves, so the gradient along the straight plan points into the wall and vanishes there.

    Args:
        start: `B 2` in metres.
        goal: `B 2` in metres.
        gap: Position of the middle of the gap along the wall (m); the wall is at x = 0.
        width: Half the width of the gap in metres.
        thickness: Thickness of the wall in metres.
        softness: Width of the transition at the edge of the gap, in metres.
        step: Distance moved by a full action, in metres.
        effort: Weight of the action cost.
        horizon: Length of a plan.
    """

    start: Annotated[Tensor, "B 2"]
    goal: Annotated[Tensor, "B 2"]
    gap: float = 1.0
    width: float = 0.25
    thickness: float = 0.2
    softness: float = 0.05
    step: float = 0.1
    effort: float = 0.01
    horizon: int = 50

    @property
    def batch(self) -> int:
        """Number of worlds."""
        return self.start.shape[0]

    @property
    def action_dim(self) -> int:
        """Two: the plane."""
        return 2

    def block(self, places: Places) -> Tensor:
        """Share of the motion that the wall blocks at positions `... 2`, 0 to 1."""
        x, y = places.unbind(dim=-1)
        inside = (-((x / self.thickness) ** 4)).exp()
        return inside * torch.sigmoid(((y - self.gap).abs() - self.width) / self.softness)

    def move(self, places: Places, actions: Places) -> Places:
        """Next positions under actions, elementwise."""
        way = self.step * actions.clamp(-1, 1)
        return places + way * (1 - self.block(places + way / 2))[..., None]

    def imagine(self, plans: Plans) -> Imagined:
        """The positions after each action of plans `B S H 2`, as states of one token."""
        place, places = self.start[:, None].expand(-1, plans.shape[1], -1), []
        for action in plans.unbind(dim=2):
            place = self.move(place, action)
            places.append(place)
        return torch.stack(places, dim=2)[:, :, :, None]

    def judge(self, states: Imagined, plans: Plans) -> Costs:
        """Cost `B S` of a state trajectory `B S H 1 2`."""
        left = (states[:, :, -1, 0] - self.goal[:, None]).square().sum(dim=-1)
        return left + self.effort * plans.square().sum(dim=-1).mean(dim=-1)

    def evaluate(self, plans: Plans) -> Costs:
        """Costs of plans `B S H 2`."""
        return self.judge(self.imagine(plans), plans)

    def steps(self) -> StepModel:
        """The problem as a step model."""

        def follow(states: Imagined, plans: Plans) -> Imagined:
            return self.move(states[..., 0, :], plans)[..., None, :]

        return StepModel(
            start=self.start[:, None], follow=follow, imagine=self.imagine, judge=self.judge, goal=self.goal[:, None]
        )
