"""The records that travel between the packages, and the names of the common tensors.

Axis letters (the whole house uses these and no others):

    B worlds side by side   S candidate plans   H future steps    T observed steps
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
from typing import Annotated

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
Streams = torch.Generator | Sequence[torch.Generator]  # one for all worlds, or one for each


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What the sensors gave: uint8 frames of one or several named cameras, and optionally the joints.

    Args:
        frames: uint8 images `B T C h w`; C is three channels (RGB) per camera, in the order of `cameras`.
        cameras: Name of each camera.
        proprio: Proprioception `B T P` in SI units, or None.
    """

    frames: Frames
    cameras: tuple[str, ...]
    proprio: Annotated[Tensor, "B T P"] | None = None

    def to(self, device: torch.device | str) -> Observation:
        """The same on a device; itself if it is there already."""
        frames = self.frames.to(device)
        proprio = None if self.proprio is None else self.proprio.to(device)
        if frames is self.frames and proprio is self.proprio:
            return self
        return replace(self, frames=frames, proprio=proprio)


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the world model knows of the past.

    Action t leads from latent t to latent t + 1, so T latents carry T - 1 actions and a plan's first action leaves the
    last latent.

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
    """The futures that a world model imagines for each candidate plan.

    Args:
        latents: `B S H N D`; entry h is the state after action h.
        proprio: `B S H P`, or None.
        sensors: Simulator sensors `B S H Q` (true dynamics only), or None.
        valid: `B S` bool, False where a candidate's future broke down (a diverged simulation), or None for all valid.
        disagreement: How far the members of an ensemble are apart at each step `B S H`, or None without one.
    """

    latents: Imagined
    proprio: Annotated[Tensor, "B S H P"] | None = None
    sensors: Annotated[Tensor, "B S H Q"] | None = None
    valid: Annotated[Tensor, "B S"] | None = None
    disagreement: Annotated[Tensor, "B S H"] | None = None


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Where to go: the latent state of the goal image, and what else is known of the goal.

    Args:
        latents: `B N D`.
        sensors: Simulator sensors at the goal `B Q`, or None.
        position: Where the hand shall be `B 3` (m), in the frame of the world model's position head, if it was
            estimated by other means than the goal's latents; or None.
    """

    latents: State
    sensors: Annotated[Tensor, "B Q"] | None = None
    position: Annotated[Tensor, "B 3"] | None = None


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Which tokens are seen and which are to be predicted: `context` B K and `targets` B M L, as token indices."""

    context: Annotated[Tensor, "B K"]
    targets: Annotated[Tensor, "B M L"]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A training loss: `total` carries the gradient, `terms` are detached numbers to log."""

    total: Tensor
    terms: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class MpcSettings:
    """How an agent plans again and again.

    Args:
        horizon: Steps that each plan looks ahead (H).
        execute: Steps of a plan that are carried out before planning anew.
        hold_below: Stand still while the goal cost of the present state is below this value (in the cost's own unit);
            0 never holds.
        deadline_s: Seconds that one plan may take; infinite by default.
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
    DEGRADED = "degraded"  # some candidates had no finite cost; the best of the others is returned
    INFEASIBLE = "infeasible"  # no candidate met the constraints; the least violating is returned
    NO_VALID = "no_valid"  # no candidate had a finite cost; the fallback is returned


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Costs of plans together with readings that must not be positive.

    A plan is feasible if every reading is <= 0; its violation is the sum of its positive readings. Feasible plans are
    ranked by cost, all others come after them, ranked by violation.

    Args:
        costs: `B S`.
        readings: g of each constraint, `B S Q`, met where g <= 0; a reading that is not finite makes a plan invalid.

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
    """The world one step at a time, for planners that search over states as well: all steps of a plan side by side.

    Args:
        start: The present state `B N D`.
        follow: Where each action leads: the states `B S H N D` in which the actions of the plans `B S H A` are taken
            (the first one is the start) -> the states after them `B S H N D`, step by step apart.
        imagine: The true course of plans, fed back step by step: `B S H A` -> the states after each `B S H N D`.
        judge: Cost `B S` of a course of states `B S H N D` and its plans; for the states that `imagine` gives it is the
            cost that `evaluate` gives.
        goal: Where to go `B N D`, if that is one state, or None.
    """

    start: State
    follow: Callable[[Imagined, Plans], Imagined]
    imagine: Callable[[Plans], Imagined]
    judge: Callable[[Imagined, Plans], Costs | Scores]
    goal: State | None = None


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """A search that is asked of a planner: it sees a function from plans to costs, never a world.

    Args:
        evaluate: Maps plans `B S H A` (physical units) to costs `B S`; lower is better. Non-finite costs mark invalid
            candidates. With constraints it gives `Scores`. Gradient planners need it to be differentiable.
        box: The single actions that are allowed.
        batch: Number of worlds B that are planned side by side.
        horizon: Plan length H.
        generator: Source of all randomness of the search, on the device of the box: one for all worlds, or a sequence
            of one per world, which gives each world the plan that it would get alone.
        warm_start: A first guess `B H A` (the last plan, shifted), or None.
        candidates: Further plans `B S H A` to try as they are (a policy's proposal, a retrieved segment), or None.
        fallback: What to do when no candidate is valid `B H A`, or None to raise.
        deadline_s: Seconds after which the best plan so far is returned; 0 evaluates nothing.
        clock: Gives the present time in seconds; replaced in tests.
        steps: The world one step at a time, for planners that search over states too, or None.

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
    """What a planner found: always finite, always inside the box.

    Args:
        actions: The plan `B H A`.
        cost: Its cost `B`; NaN for a world whose status is NO_VALID.
        status: One per world.
        trace: Best cost so far after each iteration `I B` (never rises); +inf until a plan is valid and feasible.
        iterations: Rounds of the search.
        evaluations: Candidate plans scored, per world.
        num_valid: Candidates with a finite cost `B`.
        seconds: Time taken, by the request's clock.
        warnings: What the caller should know, in sentences.
        elites: Good plans `B S H A` that are worth another try: shifted in time, candidates of the next request. None
            if the planner keeps none.
        violation: How far the plan breaks the constraints `B` (sum of the positive readings), or None without any.
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
