"""Task costs read from simulator sensors: for planners on true dynamics, where no learned distance is needed.

A stage cost maps sensors `... Q` and the goal's sensors `... Q` to one number each; `SensorCost` puts it along the
plan. All of them are differentiable in the sensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Costs, Goal, Plans, Rollout

Stage = Callable[[Annotated[Tensor, "... Q"], Annotated[Tensor, "... Q"]], Annotated[Tensor, "..."]]


class SensorCost:
    """A stage cost along a plan, and its price of moving.

        cost = mean_h stage(q_h, q_goal) + at_end * stage(q_H, q_goal) + effort * mean_h |a_h|^2

    Candidates that are not valid cost infinity.

    Args:
        stage: Cost of one step's sensors, lower is better.
        at_end: Additional weight of the plan's end.
        effort: Weight of the squared length of the actions, in their own units.

    Raises:
        ValueError: If a weight is negative.
    """

    def __init__(self, stage: Stage, *, at_end: float = 0.0, effort: float = 0.0) -> None:
        if at_end < 0 or effort < 0:
            raise ValueError(f"need at_end >= 0 and effort >= 0, got {at_end} and {effort}")
        self.stage = stage
        self.at_end = at_end
        self.effort = effort

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> Costs:
        """Score each candidate: sensors B S H Q and goal B Q -> cost B S.

        Raises:
            ValueError: If rollout or goal carry no sensors, or shapes do not fit.
        """
        if rollout.sensors is None or goal.sensors is None:
            raise ValueError("this cost reads simulator sensors: it needs true dynamics and a goal with sensors")
        sizes = check_shape(rollout.sensors, "B S H Q")
        check_shape(goal.sensors, "B Q", B=sizes["B"], Q=sizes["Q"])
        stages = self.stage(rollout.sensors, goal.sensors[:, None, None])  # (B, S, H)
        cost = stages.mean(dim=-1) + self.at_end * stages[..., -1]
        if self.effort:
            cost = cost + self.effort * plans.square().sum(dim=-1).mean(dim=-1)
        if rollout.valid is None:
            return cost
        return torch.where(rollout.valid, cost, torch.inf)


def apart(sensors: Sequence[int]) -> Stage:
    """Distance between some sensors and their values at the goal, in their own unit."""
    chosen = list(sensors)

    def stage(now: Tensor, goal: Tensor) -> Tensor:
        return (now - goal)[..., chosen].square().sum(dim=-1).add(1e-12).sqrt()

    return stage


def weighted(*terms: tuple[float, Stage]) -> Stage:
    """A sum of stage costs, each with its weight."""

    def stage(now: Tensor, goal: Tensor) -> Tensor:
        total = torch.zeros(now.shape[:-1], dtype=now.dtype, device=now.device)
        for weight, term in terms:
            total = total + weight * term(now, goal)
        return total

    return stage


def tilt(angle: int) -> Stage:
    """How far an angle (rad) is from upright, 1 - cos(angle): 0 upright, 2 upside down."""
    return lambda now, goal: 1.0 - torch.cos(now[..., angle] - goal[..., angle])


def squares(weights: Sequence[tuple[int, float]]) -> Stage:
    """Weighted squares of single sensors' distances from their values at the goal."""

    def stage(now: Tensor, goal: Tensor) -> Tensor:
        return sum(
            (weight * (now[..., at] - goal[..., at]).square() for at, weight in weights),
            start=torch.zeros((), dtype=now.dtype),
        )

    return stage
