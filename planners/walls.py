"""A long way around a wall: a problem in closed form on which descent through a whole plan is stuck."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.types import Costs, Imagined, Plans, StepModel

Places = Annotated[Tensor, "... 2"]


@dataclass(frozen=True, kw_only=True)
class Wall:
    """A point walks in the plane; a wall across its straight way lets it through at a gap on the side.

        p += step * clip(a, -1, 1) * (1 - block(p + step * a / 2))
        block(p) = exp(-(x / thickness)^4) * sigmoid((|y - gap| - width) / softness)
        cost = |p_H - goal|^2 + effort * mean |a|^2

    Inside the wall nothing moves, so the slope of the cost along the straight plan leads into the wall and ends there.

    Args:
        start: `B 2` in metres.
        goal: `B 2` in metres.
        gap: Where the middle of the gap is along the wall, in metres; the wall stands at x = 0.
        width: Half the width of the gap in metres.
        thickness: Of the wall in metres.
        softness: Length over which the gap's edge ends, in metres.
        step: Way of one full action in metres.
        effort: Price of actions.
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
        """Worlds side by side."""
        return self.start.shape[0]

    @property
    def action_dim(self) -> int:
        """Two: the plane."""
        return 2

    def block(self, places: Places) -> Tensor:
        """How much of a motion the wall takes away at places `... 2`, 0 to 1."""
        x, y = places.unbind(dim=-1)
        inside = (-((x / self.thickness) ** 4)).exp()
        return inside * torch.sigmoid(((y - self.gap).abs() - self.width) / self.softness)

    def move(self, places: Places, actions: Places) -> Places:
        """Where actions lead from places, each by itself."""
        way = self.step * actions.clamp(-1, 1)
        return places + way * (1 - self.block(places + way / 2))[..., None]

    def imagine(self, plans: Plans) -> Imagined:
        """The places after each action of plans `B S H 2`, as states of one token."""
        place, places = self.start[:, None].expand(-1, plans.shape[1], -1), []
        for action in plans.unbind(dim=2):
            place = self.move(place, action)
            places.append(place)
        return torch.stack(places, dim=2)[:, :, :, None]

    def judge(self, states: Imagined, plans: Plans) -> Costs:
        """Cost `B S` of a course of states `B S H 1 2`."""
        left = (states[:, :, -1, 0] - self.goal[:, None]).square().sum(dim=-1)
        return left + self.effort * plans.square().sum(dim=-1).mean(dim=-1)

    def evaluate(self, plans: Plans) -> Costs:
        """Costs of plans `B S H 2`."""
        return self.judge(self.imagine(plans), plans)

    def steps(self) -> StepModel:
        """The same problem one step at a time."""

        def follow(states: Imagined, plans: Plans) -> Imagined:
            return self.move(states[..., 0, :], plans)[..., None, :]

        return StepModel(
            start=self.start[:, None], follow=follow, imagine=self.imagine, judge=self.judge, goal=self.goal[:, None]
        )
