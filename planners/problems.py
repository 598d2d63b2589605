"""Small closed-form problems with a known optimum, as benchmarks of planners.

Each maps plans `B S H A` to costs `B S` by `evaluate`, is differentiable almost everywhere, and batches several worlds
with different parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Generator, Tensor

from jepa_mpc.types import ActionBox, Costs, Imagined, Plan, PlanRequest, Plans, Scores, StepModel

Vectors = Annotated[Tensor, "B D"]


class Problem(Protocol):
    """A cost of plans, with everything that a request needs."""

    @property
    def batch(self) -> int:
        """Number of worlds."""

    @property
    def horizon(self) -> int:
        """Length of a plan."""

    @property
    def action_dim(self) -> int:
        """Numbers per action."""

    def evaluate(self, plans: Plans) -> Costs:
        """Costs of plans."""

    def steps(self) -> StepModel:
        """The problem as a step model."""


@dataclass(frozen=True, kw_only=True)
class Quadratic:
    """A bowl: cost = sum of scale * (action - target)^2; least at the target, where it is 0.

    Args:
        target: `B H A`.
        scale: `H A`, positive.
    """

    target: Plan
    scale: Annotated[Tensor, "H A"]

    @property
    def batch(self) -> int:
        """Number of worlds."""
        return self.target.shape[0]

    @property
    def horizon(self) -> int:
        """Length of a plan."""
        return self.target.shape[1]

    @property
    def action_dim(self) -> int:
        """Numbers per action."""
        return self.target.shape[2]

    def evaluate(self, plans: Plans) -> Costs:
        """Costs of plans `B S H A`."""
        return (self.scale * (plans - self.target[:, None]) ** 2).sum(dim=(-2, -1))

    def steps(self) -> StepModel:
        """The problem as a step model."""
        return memoryless(self.evaluate, self.target)


@dataclass(frozen=True, kw_only=True)
class Multimodal:
    """A bowl with ripples: cost = sum of d^2 + amplitude * (1 - cos(frequency * d)), d = action - target.

    Many local minima; the global minimum is 0, at the target.
    """

    target: Plan
    amplitude: float = 0.6
    frequency: float = 5.0

    @property
    def batch(self) -> int:
        """Number of worlds."""
        return self.target.shape[0]

    @property
    def horizon(self) -> int:
        """Length of a plan."""
        return self.target.shape[1]

    @property
    def action_dim(self) -> int:
        """Numbers per action."""
        return self.target.shape[2]

    def evaluate(self, plans: Plans) -> Costs:
        """Costs of plans `B S H A`."""
        gap = plans - self.target[:, None]
        return (gap**2 + self.amplitude * (1 - (self.frequency * gap).cos())).sum(dim=(-2, -1))

    def steps(self) -> StepModel:
        """The problem as a step model."""
        return memoryless(self.evaluate, self.target)


@dataclass(frozen=True, kw_only=True)
class LinearQuadratic:
    """Linear dynamics with quadratic costs; the optimal plan follows from the Riccati recursion.

        x_{h+1} = F x_h + G a_h      cost = sum_h (x_{h+1}' Q x_{h+1} + a_h' R a_h) + x_H' Z x_H

    Args:
        transition: F, `D D`.
        control: G, `D A`.
        state_weight: Q, `D D`.
        effort_weight: R, `A A`.
        final_weight: Z, `D D`.
        start: Initial states `B D`; the goal is the origin.
        horizon: Length of a plan.
    """

    transition: Tensor
    control: Tensor
    state_weight: Tensor
    effort_weight: Tensor
    final_weight: Tensor
    start: Vectors
    horizon: int

    @property
    def batch(self) -> int:
        """Number of worlds."""
        return self.start.shape[0]

    @property
    def action_dim(self) -> int:
        """Numbers per action."""
        return self.control.shape[1]

    def evaluate(self, plans: Plans) -> Costs:
        """Costs of plans `B S H A`."""
        return self.judge(self.imagine(plans), plans)

    def move(self, states: Tensor, actions: Tensor) -> Tensor:
        """Next states of states `... D` under actions `... A`."""
        return states @ self.transition.T + actions @ self.control.T

    def imagine(self, plans: Plans) -> Imagined:
        """The states after each action of plans `B S H A`, one token each."""
        state, states = self.start[:, None].expand(-1, plans.shape[1], -1), []
        for action in plans.unbind(dim=2):
            state = self.move(state, action)
            states.append(state)
        return torch.stack(states, dim=2)[:, :, :, None]

    def judge(self, states: Imagined, plans: Plans) -> Costs:
        """Costs of state trajectories `B S H 1 D` and their plans."""
        way = _form(states[..., 0, :], self.state_weight) + _form(plans, self.effort_weight)
        return way.sum(dim=-1) + _form(states[:, :, -1, 0], self.final_weight)

    def steps(self) -> StepModel:
        """The problem as a step model."""
        start = self.start[:, None]
        return StepModel(
            start=start,
            follow=lambda states, plans: self.move(states[..., 0, :], plans)[..., None, :],
            imagine=self.imagine,
            judge=self.judge,
            goal=torch.zeros_like(start),
        )

    def optimum(self) -> tuple[Plan, Annotated[Tensor, "B"]]:
        """The optimal unbounded plan `B H A`, and its cost `B`."""
        gains = self._gains()
        state, actions = self.start, []
        for gain in gains:
            actions.append(-state @ gain.T)
            state = state @ self.transition.T + actions[-1] @ self.control.T
        plan = torch.stack(actions, dim=1)
        return plan, self.evaluate(plan[:, None])[:, 0]

    def _gains(self) -> list[Tensor]:
        """Feedback gains of each step, first to last; the Riccati recursion runs backwards."""
        gains = []
        value = self.state_weight + self.final_weight
        for _ in range(self.horizon):
            inner = self.effort_weight + self.control.T @ value @ self.control
            gains.append(torch.linalg.solve(inner, self.control.T @ value @ self.transition))
            carried = self.transition.T @ value @ (self.transition - self.control @ gains[-1])
            value = self.state_weight + carried
        return gains[::-1]


@dataclass(frozen=True, kw_only=True)
class Detour:
    """A point moves in the plane to its goal around a round obstacle on the straight line.

        p += step * clip(a, -1, 1)     each step: weight * max(0, radius - |p - obstacle|) + 0.001 |a|^2
        at the end: |p - goal|^2

    Args:
        start: `B 2` in metres.
        goal: `B 2` in metres.
        obstacle: Centre, `2`, in metres.
    """

    start: Vectors
    goal: Vectors
    obstacle: Annotated[Tensor, "2"]
    radius: float = 0.5
    step: float = 0.35
    weight: float = 10.0
    horizon: int = 10

    @property
    def batch(self) -> int:
        """Number of worlds."""
        return self.start.shape[0]

    @property
    def action_dim(self) -> int:
        """Two: the plane."""
        return 2

    def evaluate(self, plans: Plans) -> Costs:
        """Costs of plans `B S H A`."""
        return self.judge(self.imagine(plans), plans)

    def imagine(self, plans: Plans) -> Imagined:
        """The positions after each action of plans `B S H 2`, one token each."""
        places = self.start[:, None, None] + (self.step * plans.clamp(-1, 1)).cumsum(dim=2)  # (B, S, H, 2)
        return places[..., None, :]

    def judge(self, states: Imagined, plans: Plans) -> Costs:
        """Costs of position trajectories `B S H 1 2` and their plans."""
        places = states[..., 0, :]
        depth = (self.radius - (places - self.obstacle).norm(dim=-1)).clamp(min=0)
        way = (self.weight * depth + 0.001 * (plans**2).sum(dim=-1)).sum(dim=-1)
        return way + ((places[:, :, -1] - self.goal[:, None]) ** 2).sum(dim=-1)

    def steps(self) -> StepModel:
        """The problem as a step model."""
        return StepModel(
            start=self.start[:, None],
            follow=lambda states, plans: states + (self.step * plans.clamp(-1, 1))[..., None, :],
            imagine=self.imagine,
            judge=self.judge,
            goal=self.goal[:, None],
        )


def double_integrator(
    start: Vectors,
    goal: Vectors,
    *,
    horizon: int = 12,
    dt_s: float = 0.2,
    running: float = 0.1,
    effort: float = 0.01,
    final: float = 5.0,
) -> LinearQuadratic:
    """A pushed mass, v += dt a and p += dt v, with cost |p - goal|^2 + |a|^2 per step, and |v|^2 at the end.

    Args:
        start: Positions and velocities `B 2A`.
        goal: Positions `B A`.
    """
    size = goal.shape[1]
    one, zero = torch.eye(size).to(start), torch.zeros(size, size).to(start)
    place = torch.block_diag(one, zero)
    return LinearQuadratic(
        transition=torch.cat([torch.cat([one, dt_s * one], dim=1), torch.cat([zero, one], dim=1)]),
        control=torch.cat([dt_s**2 * one, dt_s * one]),
        state_weight=running * place,
        effort_weight=effort * one,
        final_weight=final * (place + 0.1 * torch.block_diag(zero, one)),
        start=torch.cat([start[:, :size] - goal, start[:, size:]], dim=1),
        horizon=horizon,
    )


def request_for(
    problem: Problem,
    generator: Generator,
    *,
    limit: float = 3.0,
    wrap: Callable[[Callable[[Plans], Costs]], Callable[[Plans], Costs]] | None = None,
) -> PlanRequest:
    """A request to solve a problem with actions in -limit..limit; `wrap` may wrap its cost function."""
    high = torch.full((problem.action_dim,), limit, device=generator.device)
    return PlanRequest(
        evaluate=problem.evaluate if wrap is None else wrap(problem.evaluate),
        box=ActionBox(low=-high, high=high),
        batch=problem.batch,
        horizon=problem.horizon,
        generator=generator,
        steps=problem.steps(),
    )


def memoryless(evaluate: Callable[[Plans], Costs | Scores], like: Plan) -> StepModel:
    """A step model for a cost of actions alone: each action is its own next state."""

    def taken(plans: Plans) -> Imagined:
        return plans[..., None, :]

    return StepModel(
        start=like.new_zeros(like.shape[0], 1, like.shape[2]),
        follow=lambda states, plans: taken(plans),
        imagine=taken,
        judge=lambda states, plans: evaluate(states[..., 0, :]),
    )


def _form(vector: Tensor, weight: Tensor) -> Tensor:
    """Quadratic form of each vector over the last axis."""
    return ((vector @ weight) * vector).sum(dim=-1)
