"""The records exchanged between the packages, and the names of the common tensors.

Axis letters (the whole code base uses these and no others):

    B worlds in parallel   S candidate plans   H future steps    T observed steps
    N tokens of one state   D width             A action          P proprioception
    Q simulator sensors     C h w image         K tokens seen     M L target blocks, tokens in each
    I planner iterations    E elites            G pooled samples
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from jepa_mpc.actions import ActionBox as ActionBox
from jepa_mpc.actions import ActionGroup as ActionGroup

Frames = Annotated[Tensor, "B T C h w"]
Latents = Annotated[Tensor, "B T N D"]
State = Annotated[Tensor, "B N D"]
Imagined = Annotated[Tensor, "B S H N D"]
Actions = Annotated[Tensor, "B T A"]
Plan = Annotated[Tensor, "B H A"]
Plans = Annotated[Tensor, "B S H A"]
Costs = Annotated[Tensor, "B S"]
Streams = torch.Generator | Sequence[torch.Generator]  # one for all worlds, or one per world


@dataclass(frozen=True, kw_only=True)
class Observation:
    """Sensor data: uint8 frames of one or several named cameras, and optionally proprioception.

    Args:
        frames: uint8 images `B T C h w`; C is three channels (RGB) per camera, in the order of `cameras`.
        cameras: Name of each camera.
        proprio: Proprioception `B T P` in SI units, or None.
    """

    frames: Frames
    cameras: tuple[str, ...]
    proprio: Annotated[Tensor, "B T P"] | None = None

    def to(self, device: torch.device | str) -> Observation:
        """The same on a device; itself if it is already there."""
        frames = self.frames.to(device)
        proprio = None if self.proprio is None else self.proprio.to(device)
        if frames is self.frames and proprio is self.proprio:
            return self
        return replace(self, frames=frames, proprio=proprio)


@dataclass(frozen=True, kw_only=True)
class Context:
    """The past states and actions that a world model uses.

    Action t leads from latent t to latent t + 1, so T latents come with T - 1 actions, and a plan starts at the last
    latent.

    Args:
        latents: `B T N D`, oldest first.
        actions: `B T-1 A` in physical units.
        proprio: `B T P`, or None.
    """

    latents: Latents
    actions: Annotated[Tensor, "B T-1 A"]
    proprio: Annotated[Tensor, "B T P"] | None = None


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The predicted futures of each candidate plan.

    Args:
        latents: `B S H N D`; entry h is the state after action h.
        proprio: `B S H P`, or None.
        sensors: Simulator sensors `B S H Q` (true dynamics only), or None.
        valid: `B S` bool, False where a candidate's future is invalid (a diverged simulation), or None for all valid.
        disagreement: Disagreement of the ensemble members at each step `B S H`, or None without an ensemble.
    """

    latents: Imagined
    proprio: Annotated[Tensor, "B S H P"] | None = None
    sensors: Annotated[Tensor, "B S H Q"] | None = None
    valid: Annotated[Tensor, "B S"] | None = None
    disagreement: Annotated[Tensor, "B S H"] | None = None


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The goal: the latent state of the goal image, and further knowledge of it.

    Args:
        latents: `B N D`.
        sensors: Simulator sensors at the goal `B Q`, or None.
        position: Goal position of the hand `B 3` (m), in the frame of the world model's position head, if it was
            estimated by other means than the goal's latents; or None.
    """

    latents: State
    sensors: Annotated[Tensor, "B Q"] | None = None
    position: Annotated[Tensor, "B 3"] | None = None


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Token indices of what is visible and what is predicted: `context` B K and `targets` B M L."""

    context: Annotated[Tensor, "B K"]
    targets: Annotated[Tensor, "B M L"]


class Loss(NamedTuple):
    """A training loss: `total` carries the gradient, `terms` are detached numbers to log.

    A tuple, so that FSDP of every PyTorch finds the tensors in it: that of 2.7 does not look into dataclasses, and no
    gradient reaches the weights.
    """

    total: Tensor
    terms: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class MpcSettings:
    """Settings of model-predictive control.

    Args:
        horizon: Planning horizon in steps (H).
        execute: Steps of a plan executed before replanning.
        hold_below: Hold still while the goal cost of the current state is below this value (in the cost's own unit); 0
            never holds.
        deadline_s: Time limit of one search (s); infinite by default.
    """

    horizon: int
    execute: int = 1
    hold_below: float = 0.0
    deadline_s: float = math.inf

    def __post_init__(self) -> None:
        if self.horizon < 1 or not 1 <= self.execute <= self.horizon:
            raise ValueError(
                f"need horizon >= 1 and 1 <= execute <= horizon, got horizon={self.horizon}, execute={self.execute}"
            )
        if not self.hold_below >= 0 or not self.deadline_s > 0:
            raise ValueError(f"need hold_below >= 0 and deadline_s > 0, got {self.hold_below} and {self.deadline_s}")


class PlanStatus(Enum):
    """How a planner's search ended, for one world."""

    CONVERGED = "converged"  # the search stopped improving before its budget was spent
    MAX_ITER = "max_iter"  # the whole budget was spent
    DEADLINE = "deadline"  # time ran out; the best plan so far is returned
    DEGRADED = "degraded"  # some candidates had no finite cost; the best valid plan is returned
    INFEASIBLE = "infeasible"  # no candidate met the constraints; the least violating is returned
    NO_VALID = "no_valid"  # no candidate had a finite cost; the fallback is returned


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Costs of plans with constraint values.

    A plan is feasible if every constraint value is <= 0; its violation is the sum of its positive values. Feasible
    plans are ranked by cost; infeasible ones rank after them, by violation.

    Args:
        costs: `B S`.
        readings: g of each constraint, `B S Q`, satisfied where g <= 0; a non-finite value makes a plan invalid.

    Raises:
        ValueError: If the shapes do not fit.
    """

    costs: Costs
    readings: Annotated[Tensor, "B S Q"]

    def __post_init__(self) -> None:
        if self.readings.dim() != 3 or self.readings.shape[:2] != self.costs.shape:
            raise ValueError(
                f"expected costs (B, S) and readings (B, S, Q), got {tuple(self.costs.shape)} and "
                f"{tuple(self.readings.shape)}"
            )


@dataclass(frozen=True, kw_only=True)
class StepModel:
    """One-step dynamics for planners that also search over states: all steps of a plan in parallel.

    Args:
        start: The current state `B N D`.
        follow: One-step prediction: states `B S H N D` in which the actions of the plans `B S H A` are taken (the first
            one is the start) -> the next states `B S H N D`, each step independent of the others.
        imagine: Rollout: plans `B S H A` -> the states after each action `B S H N D`.
        judge: Cost `B S` of a state trajectory `B S H N D` and its plans; for the states from `imagine` it equals
            `evaluate`.
        goal: The goal state `B N D`, if it is a single state, or None.
    """

    start: State
    follow: Callable[[Imagined, Plans], Imagined]
    imagine: Callable[[Plans], Imagined]
    judge: Callable[[Imagined, Plans], Costs | Scores]
    goal: State | None = None


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """A planning problem: the planner sees a function from plans to costs, never a world.

    Args:
        evaluate: Maps plans `B S H A` (physical units) to costs `B S`; lower is better. Non-finite costs mark invalid
            candidates. With constraints it returns `Scores`. Gradient planners need it to be differentiable.
        box: The allowed single actions.
        batch: Number of worlds B that are planned in parallel.
        horizon: Plan length H.
        generator: Source of all randomness of the search, on the device of the box: one for all worlds, or one per
            world, which gives each world the same plan as when planned alone.
        warm_start: Initial plan `B H A` (the last plan, shifted), or None.
        candidates: Further plans `B S H A` to score unchanged (a policy's proposal, a retrieved segment), or None.
        fallback: Plan to return when no candidate is valid `B H A`, or None to raise.
        deadline_s: Time limit (s), after which the best plan so far is returned; 0 evaluates nothing.
        clock: Returns the current time in seconds; replaced in tests.
        steps: The step model for planners that also search over states, or None.

    Raises:
        ValueError: If a count, a shape or the deadline is out of range, or a given plan is not finite.
    """

    evaluate: Callable[[Plans], Costs | Scores]
    box: ActionBox
    batch: int
    horizon: int
    generator: Streams
    warm_start: Plan | None = None
    candidates: Plans | None = None
    fallback: Plan | None = None
    deadline_s: float = math.inf
    clock: Callable[[], float] = time.monotonic
    steps: StepModel | None = None

    def __post_init__(self) -> None:
        if self.batch < 1 or self.horizon < 1:
            raise ValueError(f"need batch >= 1 and horizon >= 1, got batch={self.batch}, horizon={self.horizon}")
        if not self.deadline_s >= 0:
            raise ValueError(f"deadline_s must be 0 or more seconds, got {self.deadline_s}")
        if not isinstance(self.generator, torch.Generator) and len(self.generator) != self.batch:
            raise ValueError(f"need one generator, or one per world ({self.batch}), got {len(self.generator)}")
        shape = (self.batch, self.horizon, self.box.dim)
        for name in ("warm_start", "fallback"):
            plan = getattr(self, name)
            if plan is not None and tuple(plan.shape) != shape:
                raise ValueError(f"{name} must have shape (B, H, A) = {shape}, got {tuple(plan.shape)}")
            if plan is not None and not bool(torch.isfinite(plan).all()):
                raise ValueError(f"{name} holds values that are not finite")
        if self.candidates is not None:
            batch, _, *rest = self.candidates.shape
            if (batch, *rest) != shape:
                raise ValueError(
                    f"candidates must have shape (B, S, H, A) = ({shape[0]}, S, {shape[1]}, {shape[2]}), got "
                    f"{tuple(self.candidates.shape)}"
                )


@dataclass(frozen=True, kw_only=True)
class PlanResult:
    """Result of a planner: always finite, always inside the box.

    Args:
        actions: The plan `B H A`.
        cost: Its cost `B`; NaN for a world whose status is NO_VALID.
        status: One per world.
        trace: Best cost so far after each iteration `I B` (never rises); +inf until a plan is valid and feasible.
        iterations: Rounds of the search.
        evaluations: Scored candidate plans per world.
        num_valid: Candidates with a finite cost `B`.
        seconds: Search time, by the request's clock.
        warnings: Warnings for the caller, in sentences.
        elites: Good plans `B S H A`: shifted in time, they are candidates of the next request. None if the planner
            keeps none.
        violation: Constraint violation of the plan `B` (sum of the positive constraint values), or None without
            constraints.
    """

    actions: Plan
    cost: Annotated[Tensor, "B"]
    status: tuple[PlanStatus, ...]
    trace: Annotated[Tensor, "I B"]
    iterations: int
    evaluations: int
    num_valid: Annotated[Tensor, "B"]
    seconds: float
    warnings: tuple[str, ...] = field(default=())
    elites: Plans | None = None
    violation: Annotated[Tensor, "B"] | None = None
