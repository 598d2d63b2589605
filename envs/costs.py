"""Task costs of simulator sensors, for planning on true dynamics without a learned distance.

A stage cost maps sensors `... Q` and the goal's sensors `... Q` to a number; `SensorCost` applies it at every step,
`task_cost` along a plan. All of them are differentiable in the sensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.costs import MeanAndEnd, PlanCost, StepCosts, WeightedSum
from jepa_mpc.interfaces import Cost
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Goal, Plans, Rollout

Stage = Callable[[Annotated[Tensor, "... Q"], Annotated[Tensor, "... Q"]], Annotated[Tensor, "..."]]


@dataclass(frozen=True)
class SensorCost:
    """A stage cost at every step of a plan.

    Args:
        stage: Cost of one step's sensors; lower is better.
    """

    stage: Stage

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> StepCosts:
        """Sensors B S H Q and the goal's B Q -> cost B S H.

        Raises:
            ValueError: If rollout or goal have no sensors, or shapes do not fit.
        """
        if rollout.sensors is None or goal.sensors is None:
            lacking = "rollout" if rollout.sensors is None else "goal"
            raise ValueError(f"the {lacking} carries no sensors: this cost needs true dynamics and a simulated goal")
        sizes = check_shape(rollout.sensors, "B S H Q")
        check_shape(goal.sensors, "B Q", B=sizes["B"], Q=sizes["Q"])
        return self.stage(rollout.sensors, goal.sensors[:, None, None])


def squared_length(rollout: Rollout, plans: Plans, goal: Goal) -> StepCosts:
    """Squared length of each action, in its own units: |a_h|^2."""
    return plans.square().sum(dim=-1)


def task_cost(stage: Stage, *, at_end: float = 0.0, effort: float = 0.0) -> Cost:
    """A stage cost along a plan, plus effort.

        cost = mean_h stage(q_h, q_goal) + at_end * stage(q_H, q_goal) + effort * mean_h |a_h|^2

    Args:
        stage: Cost of one step's sensors.
        at_end: Additional weight of the plan's end.
        effort: Weight of the squared length of the actions.

    Raises:
        ValueError: If a weight is negative.
    """
    if not effort >= 0:
        raise ValueError(f"need effort >= 0, got {effort}")
    cost = PlanCost(SensorCost(stage), MeanAndEnd(at_end))
    return cost if effort == 0 else WeightedSum({"stage": (1.0, cost), "effort": (effort, PlanCost(squared_length))})


def squared(now: Tensor, goal: Tensor) -> Tensor:
    """Squared distance of all sensors to their values at the goal."""
    return (now - goal).square().sum(dim=-1)


def apart(sensors: Sequence[int]) -> Stage:
    """Distance of some sensors to their values at the goal, in their own unit."""
    chosen = list(sensors)

    def stage(now: Tensor, goal: Tensor) -> Tensor:
        return (now - goal)[..., chosen].square().sum(dim=-1).add(1e-12).sqrt()

    return stage


def weighted(*terms: tuple[float, Stage]) -> Stage:
    """A weighted sum of stage costs."""

    def stage(now: Tensor, goal: Tensor) -> Tensor:
        total = torch.zeros(now.shape[:-1], dtype=now.dtype, device=now.device)
        for weight, term in terms:
            total = total + weight * term(now, goal)
        return total

    return stage


def tilt(angle: int) -> Stage:
    """Deviation of an angle (rad) from upright, 1 - cos(angle): 0 upright, 2 upside down."""
    return lambda now, goal: 1.0 - torch.cos(now[..., angle] - goal[..., angle])


def squares(weights: Sequence[tuple[int, float]]) -> Stage:
    """Weighted squared distances of single sensors to their values at the goal."""

    def stage(now: Tensor, goal: Tensor) -> Tensor:
        return sum(
            (weight * (now[..., at] - goal[..., at]).square() for at, weight in weights),
            start=torch.zeros((), dtype=now.dtype),
        )

    return stage
