"""The cross-entropy search of V-JEPA 2-AC: a hand that moves in small steps, and a gripper with rules of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from jepa_mpc.planners.noise import Noise, WhiteNoise
from jepa_mpc.planners.refit import EliteRefit, Gaussian
from jepa_mpc.planners.search import Search, first_guess, half_width, masked, opening
from jepa_mpc.types import ActionBox, Costs, Plan, PlanRequest, PlanResult, Plans

Answer = Literal["mean", "best"]


@dataclass(frozen=True, kw_only=True)
class Gripper:
    """How a plan may use the gripper.

    Args:
        axis: Its place in an action.
        limit: Largest change of the closedness that is tried in one step.
        idle_below: A smaller change in the answer becomes none.
        momentum_mean: Share of the old mean that is kept, in place of the other axes'.
        momentum_std: Likewise of the standard deviation.
        close_from: Step of the plan from which on the gripper closes fully, or None.
    """

    axis: int = 6
    limit: float = 0.75
    idle_below: float = 0.25
    momentum_mean: float = 0.15
    momentum_std: float = 0.15
    close_from: int | None = None


@dataclass(frozen=True, kw_only=True)
class HandCEM:
    """Cross-entropy search with one momentum for the mean and another for the standard deviation.

    A round draws `num_samples` plans, brings them into the box, and moves the Gaussian towards the mean and the
    unbiased standard deviation of the cheapest ones. Axes in `fixed` have the value given there in every plan.

    Args:
        num_samples: Plans per round (S).
        num_elites: Plans that are fitted (E), at least two.
        num_iterations: Rounds (I).
        momentum_mean: Share of the old mean that is kept.
        momentum_std: Share of the old standard deviation that is kept.
        initial_std: First standard deviation, as a share of half the width of the box.
        gripper: Rules of the gripper, or None if no axis is one.
        fixed: Axis to its value.
        answer: "mean" gives the last mean, scored once more, as the authors do; "best" the cheapest plan ever tried.
        noise: Draws the spread of the candidates.

    Raises:
        ValueError: If a number is out of range or `answer` unknown.

    Reference: Assran et al. 2025, arXiv:2506.09985, section 3.3, and the authors' code.
    """

    num_samples: int = 800
    num_elites: int = 10
    num_iterations: int = 10
    momentum_mean: float = 0.15
    momentum_std: float = 0.15
    initial_std: float = 1.0
    gripper: Gripper | None = None
    fixed: Mapping[int, float] = field(default_factory=dict)
    answer: Answer = "mean"
    noise: Noise = field(default_factory=WhiteNoise)

    def __post_init__(self) -> None:
        if not 2 <= self.num_elites <= self.num_samples or self.num_iterations < 1 or not self.initial_std > 0:
            raise ValueError(
                "need 2 <= num_elites <= num_samples, num_iterations >= 1 and initial_std > 0, got "
                f"{self.num_elites}, {self.num_samples}, {self.num_iterations} and {self.initial_std}"
            )
        shares = [self.momentum_mean, self.momentum_std]
        if self.gripper is not None:
            shares += [self.gripper.momentum_mean, self.gripper.momentum_std]
        if not all(0 <= share < 1 for share in shares):
            raise ValueError(f"every momentum must lie in [0, 1), got {shares}")
        if self.answer not in get_args(Answer):
            raise ValueError(f"answer must be one of {get_args(Answer)}, got {self.answer!r}")

    @torch.no_grad()
    def plan(self, request: PlanRequest) -> PlanResult:
        """Search within the request's budget.

        Raises:
            ValueError: If the gripper's or a fixed axis does not exist, or the costs have another shape than `B S`.
            NoValidPlan: If no candidate is valid and there is no fallback.
        """
        self._check_axes(request.box)
        search = Search(request)
        mean = first_guess(request)
        gaussian = self._with_fixed(Gaussian(mean, (self.initial_std * half_width(request)).expand_as(mean)))
        given = self._given(request)
        for _ in range(self.num_iterations):
            if search.out_of_time():
                break
            plans = self._propose(request, gaussian)
            plans[:, : given.shape[1]] = given
            gaussian, given = self._refit(gaussian, plans, masked(search.judge(plans))), given[:, :0]
        if search.out_of_time():
            return search.result(rounds=self.num_iterations + 1)
        mean = self._resting(request.box.clip(gaussian.mean))
        cost = masked(search.judge(mean[:, None]))[:, 0]
        result = search.result(rounds=self.num_iterations + 1)
        return result if self.answer == "best" else _with_answer(result, mean, cost)

    def _given(self, request: PlanRequest) -> Plans:
        """What the first round tries as it is: nothing, unless the caller brings something."""
        plans = opening(request, self.num_samples)
        return plans if request.warm_start is not None or request.candidates is not None else plans[:, :0]

    def _propose(self, request: PlanRequest, gaussian: Gaussian) -> Plans:
        shape = (request.batch, self.num_samples, request.horizon, request.box.dim)
        noise = self.noise(shape, request.generator, like=request.box.low)
        plans = request.box.clip(gaussian.mean[:, None] + gaussian.std[:, None] * noise)
        if self.gripper is not None:
            plans[..., self.gripper.axis].clamp_(-self.gripper.limit, self.gripper.limit)
        for axis, value in self.fixed.items():
            plans[..., axis] = value
        if self.gripper is not None and self.gripper.close_from is not None:
            closing = request.box.high[self.gripper.axis].clamp(max=1.0)
            plans[:, :, self.gripper.close_from :, self.gripper.axis] = closing
        return plans

    def _with_fixed(self, gaussian: Gaussian) -> Gaussian:
        mean, std = gaussian.mean.clone(), gaussian.std.clone()
        for axis, value in self.fixed.items():
            mean[..., axis], std[..., axis] = value, 0.0
        return Gaussian(mean, std)

    def _refit(self, old: Gaussian, plans: Plans, costs: Costs) -> Gaussian:
        fitted = EliteRefit(num_elites=self.num_elites, correction=1)(old, plans, costs)
        keep_mean, keep_std = self._kept_shares(plans)
        return Gaussian(torch.lerp(fitted.mean, old.mean, keep_mean), torch.lerp(fitted.std, old.std, keep_std))

    def _kept_shares(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """How much of the old mean and of the old standard deviation stays, per axis `A`."""
        mean, std = (like.new_full((like.shape[-1],), share) for share in (self.momentum_mean, self.momentum_std))
        if self.gripper is not None:
            mean[self.gripper.axis] = self.gripper.momentum_mean
            std[self.gripper.axis] = self.gripper.momentum_std
        return mean, std

    def _resting(self, plan: Plan) -> Plan:
        """The plan with the gripper's small changes left out."""
        if self.gripper is None:
            return plan
        change = plan[..., self.gripper.axis]
        plan = plan.clone()
        plan[..., self.gripper.axis] = torch.where(change.abs() < self.gripper.idle_below, 0.0, change)
        return plan

    def _check_axes(self, box: ActionBox) -> None:
        axes = [*self.fixed, *([] if self.gripper is None else [self.gripper.axis])]
        if any(not 0 <= axis < box.dim for axis in axes):
            raise ValueError(
                f"this planner has rules for the axes {axes}, and the robot's actions have {box.dim} numbers"
            )
        for axis, value in self.fixed.items():
            low, high = float(box.low[axis]), float(box.high[axis])
            if not low <= value <= high:
                raise ValueError(f"axis {axis} is fixed at {value}, and the robot takes {low:.4g} to {high:.4g} there")


def _with_answer(result: PlanResult, plan: Plan, cost: Costs) -> PlanResult:
    """The same result with another plan, where that one is valid."""
    valid = cost.isfinite()
    return dataclasses.replace(
        result,
        actions=torch.where(valid[:, None, None], plan, result.actions),
        cost=torch.where(valid, cost, result.cost),
    )


def hand_cem(
    *,
    num_samples: int = 800,
    num_elites: int = 10,
    num_iterations: int = 10,
    momentum_mean: float = 0.15,
    momentum_std: float = 0.15,
    gripper: int | None = None,
    close_from: int | None = None,
    answer: Answer = "best",
) -> HandCEM:
    """The search of V-JEPA 2-AC; `gripper` is the axis of the gripper, if there is one that plans may move."""
    return HandCEM(
        num_samples=num_samples,
        num_elites=num_elites,
        num_iterations=num_iterations,
        momentum_mean=momentum_mean,
        momentum_std=momentum_std,
        gripper=None if gripper is None else Gripper(axis=gripper, close_from=close_from),
        answer=answer,
    )
