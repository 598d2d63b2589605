"""What the agent wants: costs of imagined futures, `B S`, lower is better, differentiable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from jepa_mpc.interfaces import Cost
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Costs, Goal, Plans, Rollout

Steps = Literal["all", "last"]
Gap = Callable[[Tensor, Tensor], Tensor]
Metric = Callable[[Tensor], Tensor]


def absolute(latents: Annotated[Tensor, "... N D"], goal: Annotated[Tensor, "... N D"]) -> Tensor:
    """Distance of two states: mean |z - z_goal| over tokens and width."""
    return (latents - goal).abs().mean(dim=(-2, -1))


def squared(latents: Annotated[Tensor, "... N D"], goal: Annotated[Tensor, "... N D"]) -> Tensor:
    """Distance of two states: |z - z_goal|^2 summed over the width, mean over the tokens."""
    return (latents - goal).square().sum(dim=-1).mean(dim=-1)


def euclidean(latents: Annotated[Tensor, "... N D"], goal: Annotated[Tensor, "... N D"]) -> Tensor:
    """Distance of two states: the length of z - z_goal, mean over the tokens; its gradient is 0 where they meet."""
    square = (latents - goal).square().sum(dim=-1)
    apart = square > 0
    return torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0).mean(dim=-1)


class GoalDistance(nn.Module):
    """How far the imagined states are from the goal's.

        cost = mean over the judged steps of distance(m(z_h), m(z_goal))

    Args:
        steps: "last" judges the end of the plan, "all" each step of it. An agent that replans at every step should
            judge all of them: with the end alone, the goal stays a plan's length away for ever.
        distance: Maps two states `... N D` to `...`: `squared`, `absolute`, `euclidean`, or one of your own.
        metric: A map of states `... N D` to vectors `... M` in which the distance is taken instead (a learned head
            that gives metres); None compares the latents themselves.
    """

    def __init__(self, *, steps: Steps = "all", distance: Gap = squared, metric: Metric | None = None) -> None:
        super().__init__()
        self.steps = _checked(steps)
        self.distance = distance
        self.metric = metric

    def forward(self, rollout: Rollout, plans: Plans, goal: Goal) -> Costs:
        """Score each candidate: rollout B S H N D, goal B N D -> cost B S.

        Raises:
            ValueError: If goal and rollout differ in B, N or D.
        """
        sizes = check_shape(rollout.latents, "B S H N D")
        check_shape(goal.latents, "B N D", B=sizes["B"], N=sizes["N"], D=sizes["D"])
        latents = self._mapped(_judged(rollout.latents, self.steps))
        wanted = self._mapped(goal.latents[:, None, None])
        return self.distance(latents, wanted).mean(dim=-1)

    def _mapped(self, latents: Annotated[Tensor, "... N D"]) -> Tensor:
        """The states in the space of the metric, as one token each."""
        return latents if self.metric is None else self.metric(latents)[..., None, :]


class PositionDistance(nn.Module):
    """How far the hand is from the goal's position on the imagined way.

        cost = mean over the steps of |m(z_h) - x_goal|^2

    Args:
        metric: Maps states `... N D` to positions `... 3` (m).
    """

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self.metric = metric

    def forward(self, rollout: Rollout, plans: Plans, goal: Goal) -> Costs:
        """Score each candidate: rollout B S H N D -> cost B S (m^2); a goal without position is read by the metric."""
        wanted = self.metric(goal.latents) if goal.position is None else goal.position
        return (self.metric(rollout.latents) - wanted[:, None, None]).square().sum(dim=-1).mean(dim=-1)


class SensorGoalDistance(nn.Module):
    """How far simulator sensors are from their values at the goal (true dynamics only).

        cost = mean over the judged steps of |q_h - q_goal|^2

    Args:
        steps: "last" judges the end of the plan, "all" each step of it.
        sensors: Indices of the sensors that count, or None for all of them.
    """

    def __init__(self, *, steps: Steps = "all", sensors: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.steps = _checked(steps)
        self.sensors = slice(None) if sensors is None else list(sensors)

    def forward(self, rollout: Rollout, plans: Plans, goal: Goal) -> Costs:
        """Score each candidate: sensors B S H Q, goal's B Q -> cost B S.

        Raises:
            ValueError: If rollout or goal has no sensors, or they differ in B or Q.
        """
        if rollout.sensors is None or goal.sensors is None:
            lacking = "rollout" if rollout.sensors is None else "goal"
            raise ValueError(f"the {lacking} carries no sensors: this cost needs true dynamics and a simulated goal")
        sizes = check_shape(rollout.sensors, "B S H Q")
        check_shape(goal.sensors, "B Q", B=sizes["B"], Q=sizes["Q"])
        gap = _judged(rollout.sensors, self.steps) - goal.sensors[:, None, None]  # (B, S, H or 1, Q)
        return gap[..., self.sensors].square().sum(dim=-1).mean(dim=-1)


class Effort(nn.Module):
    """How large the actions are: mean (a / scale)^2.

    Args:
        scale: The action of each axis that counts as 1, `A` (half the width of the box, say), or None for 1; axes with
            scale 0 do not count.
    """

    def __init__(self, *, scale: Annotated[Tensor, "A"] | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", _inverse(scale), persistent=False)

    def forward(self, rollout: Rollout, plans: Plans, goal: Goal) -> Costs:
        """Plans B S H A -> cost B S."""
        return (plans * self.get_buffer("weight")).square().mean(dim=(-2, -1))


class Smoothness(nn.Module):
    """How much neighbouring actions differ: mean ((a_{h+1} - a_h) / scale)^2; 0 for a plan of one step.

    Args:
        scale: As in `Effort`.
    """

    def __init__(self, *, scale: Annotated[Tensor, "A"] | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", _inverse(scale), persistent=False)

    def forward(self, rollout: Rollout, plans: Plans, goal: Goal) -> Costs:
        """Plans B S H A -> cost B S."""
        change = (plans[:, :, 1:] - plans[:, :, :-1]) * self.get_buffer("weight")
        return change.square().sum(dim=(-2, -1)) / max(1, change.shape[2] * change.shape[3])


class WeightedSum(nn.Module):
    """A sum of named costs: cost = sum over the terms of weight * term.

    Args:
        terms: Name -> (weight, cost).
    """

    def __init__(self, terms: Mapping[str, tuple[float, Cost]]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("a weighted sum needs at least one term")
        self.weights = {name: weight for name, (weight, _) in terms.items()}
        self.costs = {name: cost for name, (_, cost) in terms.items()}
        self.trainable = nn.ModuleDict({name: cost for name, cost in self.costs.items() if isinstance(cost, nn.Module)})

    def terms(self, rollout: Rollout, plans: Plans, goal: Goal) -> dict[str, Costs]:
        """Each weighted term `B S` by its name: for logs, and for whoever asks why."""
        return {name: self.weights[name] * cost(rollout, plans, goal) for name, cost in self.costs.items()}

    def forward(self, rollout: Rollout, plans: Plans, goal: Goal) -> Costs:
        """Score each candidate -> cost B S."""
        return torch.stack(tuple(self.terms(rollout, plans, goal).values())).sum(dim=0)


def _judged(steps_of: Annotated[Tensor, "B S H ..."], steps: Steps) -> Tensor:
    return steps_of if steps == "all" else steps_of[:, :, -1:]


def _checked(steps: Steps) -> Steps:
    if steps not in ("last", "all"):
        raise ValueError(f"steps must be 'last' or 'all', got {steps!r}")
    return steps


def _inverse(scale: Tensor | None) -> Tensor:
    """1 / scale, and 0 where the scale is 0."""
    if scale is None:
        return torch.tensor(1.0)
    return torch.where(scale > 0, 1 / torch.where(scale > 0, scale, 1.0), 0.0)
