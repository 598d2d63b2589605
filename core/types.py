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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated

import torch
from torch import Tensor

Frames = Annotated[Tensor, "B T C h w"]
Latents = Annotated[Tensor, "B T N D"]
State = Annotated[Tensor, "B N D"]
Imagined = Annotated[Tensor, "B S H N D"]
Actions = Annotated[Tensor, "B T A"]
Plan = Annotated[Tensor, "B H A"]
Plans = Annotated[Tensor, "B S H A"]
Costs = Annotated[Tensor, "B S"]


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
    """

    latents: Imagined
    proprio: Annotated[Tensor, "B S H P"] | None = None
    sensors: Annotated[Tensor, "B S H Q"] | None = None
    valid: Annotated[Tensor, "B S"] | None = None


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Where to go: the latent state of the goal image, and the simulator sensors there if the goal came from one.

    Args:
        latents: `B N D`.
        sensors: `B Q`, or None.
    """

    latents: State
    sensors: Annotated[Tensor, "B Q"] | None = None


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
class ActionBox:
    """The actions that the robot accepts, in physical units: an axis-parallel box.

    An axis of zero width (low = high) is held fixed.

    Args:
        low: Smallest value of each axis `A`.
        high: Largest value of each axis `A`.

    Raises:
        ValueError: If the bounds differ in shape, are not finite or cross.
    """

    low: Annotated[Tensor, "A"]
    high: Annotated[Tensor, "A"]

    def __post_init__(self) -> None:
        if self.low.shape != self.high.shape or self.low.dim() != 1:
            raise ValueError(
                f"action bounds must be two vectors of one length, got shapes {tuple(self.low.shape)} and "
                f"{tuple(self.high.shape)}"
            )
        if not bool(torch.isfinite(self.low).all() and torch.isfinite(self.high).all()):
            raise ValueError("action bounds must be finite: a planner samples between them")
        if bool((self.low > self.high).any()):
            axes = (self.low > self.high).nonzero().flatten().tolist()
            raise ValueError(f"action bounds cross (low > high) on axes {axes}")

    @property
    def dim(self) -> int:
        """Number of action axes A."""
        return int(self.low.shape[0])

    def clip(self, actions: Tensor) -> Tensor:
        """Nearest actions inside the box; the last axis of `actions` is A."""
        return torch.minimum(torch.maximum(actions, self.low), self.high)


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
        if self.hold_below < 0 or not self.deadline_s > 0:
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
class PlanRequest:
    """A search that is asked of a planner: it sees a function from plans to costs, never a world.

    Args:
        evaluate: Maps plans `B S H A` (physical units) to costs `B S`; lower is better. Non-finite costs mark invalid
            candidates. Gradient planners need it to be differentiable.
        box: Bounds of each single action.
        batch: Number of worlds B that are planned side by side.
        horizon: Plan length H.
        generator: Source of all randomness of the search, on the device of the box.
        warm_start: A first guess `B H A` (the last plan, shifted), or None.
        candidates: Further plans `B S H A` to try as they are (a policy's proposal, a retrieved segment), or None.
        fallback: What to do when no candidate is valid `B H A`, or None to raise.
        deadline_s: Seconds after which the best plan so far is returned.
        clock: Gives the present time in seconds; replaced in tests.
    """

    evaluate: Callable[[Plans], Costs]
    box: ActionBox
    batch: int
    horizon: int
    generator: torch.Generator
    warm_start: Plan | None = None
    candidates: Plans | None = None
    fallback: Plan | None = None
    deadline_s: float = math.inf
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if self.batch < 1 or self.horizon < 1:
            raise ValueError(f"need batch >= 1 and horizon >= 1, got batch={self.batch}, horizon={self.horizon}")
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
        trace: Best cost so far after each iteration `I B` (never rises).
        iterations: Rounds of the search.
        evaluations: Candidate plans scored, per world.
        num_valid: Candidates with a finite cost `B`.
        seconds: Time taken, by the request's clock.
        warnings: What the caller should know, in sentences.
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
