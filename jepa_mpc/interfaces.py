"""The protocols between the packages; they share nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypedDict, runtime_checkable

import numpy as np
from torch import Generator, Tensor

from jepa_mpc.step_log import StepLog
from jepa_mpc.types import (
    Context,
    Costs,
    Goal,
    Latents,
    Loss,
    Masks,
    Observation,
    PlanRequest,
    PlanResult,
    Plans,
    Rollout,
    State,
)


class MaskSampler(Protocol):
    """Draws masks."""

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """Masks for `batch` samples."""


class Regulariser(Protocol):
    """Prevents latents from collapsing."""

    def __call__(self, latents: Annotated[Tensor, "G D"], generator: Generator) -> Tensor:
        """A scalar penalty; lower for a healthier spread of the G samples."""


class Window(TypedDict, total=False):
    """One training sample cut from an episode (a batch of them has a leading B)."""

    frames: Annotated[Tensor, "T C h w"]
    actions: Annotated[Tensor, "T-1 A"]
    proprio: Annotated[Tensor, "T P"]


Batch = Mapping[str, Tensor]


class Objective(Protocol):
    """A training loss: all that the training loop knows of a system."""

    def __call__(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of one batch."""

    def after_step(self, progress: float) -> None:
        """Update the targets after an optimiser step; `progress` runs from 0 to 1."""


class Perception(Protocol):
    """Maps observations to one latent state per frame."""

    def __call__(self, observation: Observation) -> Latents:
        """Encode every frame of the observation."""


class Dynamics(Protocol):
    """A world model, learned or true."""

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """Predict the future under each candidate plan."""


@runtime_checkable
class Bounded(Protocol):
    """Dynamics with a memory limit: plans are rolled out and evaluated in batches."""

    def at_once(self, context: Context, horizon: int) -> int:
        """Candidates per world in one batch, at least one."""


class Cost(Protocol):
    """Cost of predicted futures; lower is better."""

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> Costs:
        """Evaluate every candidate."""


class Proposal(Protocol):
    """Proposes candidate plans before any search: a policy's output, a segment of a log."""

    def __call__(self, context: Context, goal: Goal, *, horizon: int) -> Plans:
        """Candidate plans `B S H A` with S >= 1; the first one is the best guess."""


class Planner(Protocol):
    """Searches for a cheap plan; sees a cost function, not a world."""

    def plan(self, request: PlanRequest) -> PlanResult:
        """Search within the request's budget."""


class Memory(Protocol):
    """Stores the last latents and the actions between them."""

    def begin(self, *, goal: State | None = None) -> None:
        """Begin a new episode: earlier entries are no longer read."""

    def aim(self, *, goal: State | None = None) -> None:
        """Continue towards another goal."""

    def see(self, latents: State, proprio: Annotated[Tensor, "B P"] | None = None) -> None:
        """Append newly perceived latents, with proprioception if available."""

    def unsee(self) -> None:
        """Undo the last `see`, if no action followed it."""

    def did(self, action: Annotated[Tensor, "B A"]) -> None:
        """Append the executed action."""

    def read(self) -> Context:
        """The stored context, oldest first."""


class GoalReader(Protocol):
    """Estimates the goal from the goal image, and from later observations."""

    def reset(self, goal: Observation) -> Goal:
        """Begin an episode and read its goal; only the last frame is used."""

    def aim(self, goal: Observation) -> Goal:
        """Read another goal during an episode."""

    def update(self, observation: Observation, state: State) -> Goal:
        """The current goal estimate after an observation and its perceived state `B N D`."""

    def did(self, action: Annotated[Tensor, "B A"]) -> None:
        """Register the action executed after the observation."""


class Agent(Protocol):
    """Acts towards a goal."""

    @property
    def last(self) -> StepLog | None:
        """The log of the last step; None before the first one."""

    def reset(self, goal: Observation) -> None:
        """Begin an episode: encode the goal once and clear the memory."""

    def act(self, observation: Observation) -> Annotated[Tensor, "B A"]:
        """Choose the next action, in physical units."""


@runtime_checkable
class RobotEnv(Protocol):
    """A gymnasium environment whose state can be saved, restored and evaluated."""

    def state(self) -> np.ndarray:
        """The full physics state; `set_state(state())` changes nothing."""

    def set_state(self, state: np.ndarray) -> None:
        """Restore a saved state."""

    def goal(self) -> Observation:
        """The goal image of this episode."""

    def success(self) -> bool:
        """Whether the goal is currently reached."""


@dataclass(frozen=True)
class Field:
    """One recorded quantity: shape of a single step, dtype, unit, rate, and the log's own names of its axes (JSON)."""

    shape: tuple[int, ...]
    dtype: str
    unit: str = ""
    hz: float | None = None
    names: Any = None


class EpisodeStore(Protocol):
    """A log in one format."""

    lengths: Sequence[int]
    fields: Mapping[str, Field]

    def read(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, Any]:
        """Steps start..stop-1 of the named fields."""
