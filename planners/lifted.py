"""Joint search over actions and intermediate states, all steps in parallel (in the spirit of GRASP)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import torch
from torch import Tensor
from torch.optim import Adam

from jepa_mpc.planners.constraints import AugmentedLagrangian, Constrained, Treatment, usual_size
from jepa_mpc.planners.gradient import QUICK_BETAS, Descent, OptimiserFactory, without_closure
from jepa_mpc.planners.noise import Noise, WhiteNoise
from jepa_mpc.planners.search import Search, masked, opening, starts, without_constraints
from jepa_mpc.types import Costs, Imagined, PlanRequest, PlanResult, Plans, Scores, StepModel, Streams

NUM_WAVES = 3  # sine waves per bent path: enough to leave the straight line and return


@dataclass(frozen=True, kw_only=True)
class LiftedPlanner:
    """Search for actions and states together; the dynamics are a penalty, not built in.

        loss = cost(x, a) / unit + weight * mean over h of |F(cut(x_h), a_h) - x_{h+1}|^2 / scale^2
             + shaping * mean over h of |F(cut(x_h), a_h) - goal|^2 / scale^2

    x_0 is the current state; all other states are free, so F is evaluated once for all steps in parallel and no
    gradient flows back through time. `cut` scales the gradient to the state that F starts from: 0 as in the paper,
    since learned models are steep there, 1 for plain collocation. Starts follow bent paths from the current state to
    the goal; noise is added to the states as they move; the weight grows. A round, repeated during the search and at
    its end, scores the plans alone in the real model and takes a few gradient steps on the true cost. Then the cheaper
    half of the starts continues from the states that their plans really reach, and the other half restarts on new
    paths. The search returns the best plan scored by the request's `evaluate`. A step of the loss costs as much as
    scoring each start once and is not counted as an evaluation.

    Args:
        num_starts: Starts in parallel (S).
        num_rounds: How many times the plans are scored in the model.
        num_steps: Loss steps before each round.
        optimiser: Makes the optimiser of the actions, in shares of half the width of the box.
        state_optimiser: Makes the optimiser of the states, in units of the distance from the current state to the goal.
        weight: Initial weight of the dynamics penalty.
        state_gradient: Share of the gradient that passes through the model to the states it starts from, 0 to 1.
        num_refined: Gradient steps on the true cost in each round.
        refiner: Makes the optimiser of the actions for these steps.
        growth: Total growth factor of the weight over the search.
        shaping: Weight of every step's distance to the goal; needs a step model with a goal.
        state_noise: Standard deviation of noise on the states after each step, falling to 0 over the search, in units
            of the start-goal distance.
        bend: Standard deviation of the bend of the first paths, in units of the start-goal distance.
        initial_std: Initial spread of the actions, as a share of half the width of the box.
        noise: Draws the initial actions.
        constraints: How constraints enter the descended cost.

    Raises:
        ValueError: If a number is out of range.

    Reference: Psenka et al. 2026, arXiv:2602.00475.
    """

    num_starts: int
    num_rounds: int
    num_steps: int
    optimiser: OptimiserFactory
    state_optimiser: OptimiserFactory
    weight: float
    state_gradient: float
    num_refined: int = 3
    refiner: OptimiserFactory = field(default_factory=lambda: partial(Adam, lr=0.05, betas=QUICK_BETAS))
    growth: float = 10.0
    shaping: float = 0.0
    state_noise: float = 0.003
    bend: float = 0.4
    initial_std: float = 0.3
    noise: Noise = field(default_factory=WhiteNoise)
    constraints: Treatment = field(default_factory=AugmentedLagrangian)

    def __post_init__(self) -> None:
        counts = {"num_starts": self.num_starts, "num_rounds": self.num_rounds, "num_steps": self.num_steps}
        sizes = {name: getattr(self, name) for name in ("shaping", "state_noise", "bend", "initial_std")}
        if min(counts.values()) < 1 or self.num_refined < 0:
            raise ValueError(f"need counts of 1 or more and num_refined >= 0, got {counts} and {self.num_refined}")
        sound = all(0 <= size < math.inf for size in sizes.values())
        if not (sound and 0 < self.weight < math.inf and 1 <= self.growth < math.inf):
            raise ValueError(
                f"need weight > 0, growth >= 1 and sizes >= 0, all finite, got {self.weight}, {self.growth}, {sizes}"
            )
        if not 0 <= self.state_gradient <= 1:
            raise ValueError(f"state_gradient must be from 0 to 1, got {self.state_gradient}")

    def plan(self, request: PlanRequest) -> PlanResult:
        """Search within the request's budget.

        Raises:
            ValueError: If the request has no step model, its cost or dynamics are not differentiable, shaping is set
                without a goal, or the caller's candidates do not fit.
            NoValidPlan: If no plan is valid and there is no fallback.
        """
        steps = self._step_model(request)
        search = Search(request)
        rounds = 1 + self.num_rounds * (1 + self.num_refined)
        if search.out_of_time():
            return search.result(rounds=rounds)
        with torch.no_grad():
            given = opening(request, self.num_starts)
            search.score(given)
        if search.out_of_time():
            return search.result(rounds=rounds)
        with torch.no_grad():
            first = starts(request, given, self.num_starts, noise=self.noise, std=self.initial_std)
            descent = Descent(first, request)
            course = _Course(self, steps, descent, known=given.shape[1], generator=request.generator)
        for index in range(self.num_rounds):
            self._lift(search, course, index)
            costs = self._try(search, descent)
            if search.out_of_time():
                break
            if index + 1 < self.num_rounds:
                course.follow_plans(costs)
        return search.result(rounds=rounds)

    def _step_model(self, request: PlanRequest) -> StepModel:
        if request.steps is None:
            raise ValueError("the lifted planner searches over states: the request needs `steps`, a step model")
        if self.shaping > 0 and request.steps.goal is None:
            raise ValueError("shaping needs a goal state, but the request's step model has none")
        return request.steps

    def _lift(self, search: Search, course: _Course, index: int) -> None:
        """The loss steps before round `index`."""
        for step in range(self.num_steps):
            if search.out_of_time():
                return
            course.step((index * self.num_steps + step) / (self.num_rounds * self.num_steps))

    def _try(self, search: Search, descent: Descent) -> Costs:
        """Score the plans in the real model and take gradient steps; returns the last costs `B S`."""
        refiner = without_closure(self.refiner([descent.u]))
        constrained = Constrained(self.constraints)
        costs = descent.u.new_full(descent.u.shape[:2], torch.inf)
        for step in range(1 + self.num_refined):
            if search.out_of_time():
                break
            with torch.enable_grad():
                plans = descent.plans()
                costs = constrained.cost(search.score(plans))
                if step < self.num_refined:
                    descent.u.grad = descent.slope(plans, costs)
                    refiner.step()
                    descent.project(costs)
        return masked(costs.detach())


class _Course:
    """The free states of a search and the actions between them.

    States are stored relative to the current state, x = (state - start) / scale, so that steps and noise have the same
    meaning in any state space. Statistics over states are taken per world.
    """

    def __init__(
        self, planner: LiftedPlanner, steps: StepModel, descent: Descent, *, known: int, generator: Streams
    ) -> None:
        self.planner, self.model, self.descent, self.generator = planner, steps, descent, generator
        self.start = steps.start[:, None, None]  # (B, 1, 1, N, D)
        real = steps.imagine(descent.plans().detach())
        self.goal = None if steps.goal is None else steps.goal[:, None, None]
        self.scale = self._way(real)
        self.unit: Tensor | None = None
        drawn = real if self.goal is None else self._bent_ways(real)
        self.x = torch.cat([self._relative(real)[:, :known], self._relative(drawn)[:, known:]], dim=1).requires_grad_()
        self.constrained = Constrained(planner.constraints)
        self.optimiser = without_closure(planner.optimiser([descent.u]))
        self.state_optimiser = without_closure(planner.state_optimiser([self.x]))

    def step(self, progress: float) -> None:
        """One loss step; `progress` runs from 0 to 1 over the search."""
        with torch.enable_grad():
            plans = self.descent.plans()
            loss = self._loss(plans, self.planner.weight * self.planner.growth**progress)
            valid = loss.isfinite()
            total = torch.where(valid, loss, 0.0).sum()
            slopes = torch.autograd.grad(total, (plans, self.x), allow_unused=True)
        if slopes[0] is None or slopes[1] is None:
            raise ValueError("the lifted planner needs a cost and dynamics that are differentiable")
        here = self.x.detach().clone()
        self.descent.u.grad = torch.where(_sound(valid, slopes[0]), slopes[0] * self.descent.half, 0.0)
        self.x.grad = torch.where(_sound(valid, slopes[1]), slopes[1], 0.0)
        self.optimiser.step()
        self.state_optimiser.step()
        self.descent.project(loss)
        with torch.no_grad():
            moved = self.x + self.planner.state_noise * (1 - progress) * self._draw(self.x.shape[2])
            self.x.copy_(torch.where(moved.isfinite(), moved, here))

    @torch.no_grad()
    def follow_plans(self, costs: Costs) -> None:
        """Set the states of the cheaper half to where their plans really lead; restart the others on new paths."""
        real = self.model.imagine(self.descent.plans().detach())
        fresh = real if self.goal is None else self._bent_ways(real)
        place = costs.argsort(dim=1, stable=True).argsort(dim=1)[..., None, None, None]
        kept = place < (costs.shape[1] + 1) // 2
        x = self._relative(torch.where(kept, real, fresh))
        self.x.copy_(torch.where(x.isfinite(), x, self.x))

    def _loss(self, plans: Plans, weight: float) -> Costs:
        """The lifted loss `B S` of plans and states."""
        states = self.start + self.scale * self.x
        before = torch.cat([self.start.expand_as(states[:, :, :1]), states[:, :, :-1]], dim=2)
        through = self.planner.state_gradient
        after = self.model.follow(before.detach() * (1 - through) + before * through, plans)
        loss = self._judged(states, plans) + weight * self._gap(after - states)
        if self.goal is not None and self.planner.shaping > 0:
            loss = loss + self.planner.shaping * self._gap(after - self.goal)
        return loss

    def _judged(self, states: Imagined, plans: Plans) -> Costs:
        """The cost of the free states `B S`, in units of the initial costs."""
        given = self.model.judge(states, plans)
        scores = given if isinstance(given, Scores) else without_constraints(given)
        if self.unit is None:
            self.unit = usual_size(scores.costs)
        return self.constrained.cost(scores) / self.unit

    def _gap(self, gap: Imagined) -> Costs:
        """Mean square of `B S H N D` over steps and entries, in units of the start-goal distance."""
        square = (gap / self.scale).square().sum(dim=(-3, -2, -1))
        return square / max(1, gap[0, 0].numel())

    def _way(self, real: Imagined) -> Annotated[Tensor, "B 1 1 1 1"]:
        """RMS entry of the path to the goal, or of the states that the first plans reach; 1 where it is 0."""
        way = real - self.start if self.goal is None else self.goal - self.start
        square = torch.where(way.isfinite(), way, 0.0).square()
        size = square.flatten(1).mean(dim=1).sqrt() if square.numel() else square.new_zeros(square.shape[0])
        return torch.where(size > 0, size, 1.0)[:, None, None, None, None]

    def _relative(self, states: Imagined) -> Imagined:
        return (states - self.start) / self.scale

    def _bent_ways(self, like: Imagined) -> Imagined:
        """States `B S H N D` on bent paths from the current state to the goal: straight lines plus a few slow waves."""
        assert self.goal is not None
        time = torch.linspace(0, 1, like.shape[2] + 1)[1:].to(like)[:, None, None]
        waves = self.planner.bend * self._draw(NUM_WAVES)  # (B, S, waves, N, D)
        bend = sum(
            (waves[:, :, k : k + 1] / (k + 1) * (torch.pi * (k + 1) * time).sin() for k in range(NUM_WAVES)),
            start=torch.zeros_like(like),
        )
        return self.start + time * (self.goal - self.start) + self.scale * bend

    def _draw(self, steps: int) -> Imagined:
        """Standard normal numbers for `steps` states of each start, `B S steps N D`."""
        worlds, starts = self.descent.u.shape[:2]
        tokens, width = self.start.shape[-2:]
        flat = WhiteNoise()((worlds, starts, steps, tokens * width), self.generator, like=self.start)
        return flat.unflatten(-1, (tokens, width))


def _sound(valid: Annotated[Tensor, "B S"], slope: Tensor) -> Tensor:
    """Mask of the starts with finite loss and gradient, broadcast over the gradient's axes."""
    sound = valid & slope.flatten(2).isfinite().all(dim=-1)
    return sound.reshape(*sound.shape, *[1] * (slope.dim() - 2))
