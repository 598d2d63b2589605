"""The protocols through which the packages meet; nothing else is shared between them."""

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
    """Draws what is hidden."""

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """Masks for `batch` samples."""


class Regulariser(Protocol):
    """Keeps latents apart from each other."""

    def __call__(self, latents: Annotated[Tensor, "G D"], generator: Generator) -> Tensor:
        """One number, lower for a healthier spread of the G samples."""


class Window(TypedDict, total=False):
    """One training sample cut from an episode (a batch of them has a leading B)."""

    frames: Annotated[Tensor, "T C h w"]
    actions: Annotated[Tensor, "T-1 A"]
    proprio: Annotated[Tensor, "T P"]


Batch = Mapping[str, Tensor]


class Objective(Protocol):
    """A training loss: the only thing that the training loop knows."""

    def __call__(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of one batch."""

    def after_step(self, progress: float) -> None:
        """Move the targets after an optimiser step; `progress` runs from 0 to 1."""


class Perception(Protocol):
    """Observations in, one latent state per frame out."""

    def __call__(self, observation: Observation) -> Latents:
        """Encode every frame of the observation."""


class Dynamics(Protocol):
    """A world model, learned or true."""

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """Imagine what each candidate plan leads to."""


@runtime_checkable
class Bounded(Protocol):
    """Dynamics whose futures are kept small in memory: plans are imagined and judged so many at a time."""

    def at_once(self, context: Context, horizon: int) -> int:
        """Candidates per world, at least one."""


class Cost(Protocol):
    """Judges imagined futures: lower is better."""

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> Costs:
        """Score every candidate."""


class Proposal(Protocol):
    """Names plans that are worth a try before any search: a policy's answer, a remembered piece of a log."""

    def __call__(self, context: Context, goal: Goal, *, horizon: int) -> Plans:
        """Candidate plans `B S H A`, S from 1; the first one is the best guess."""


class Planner(Protocol):
    """Searches for a cheap plan; sees a function, not a world."""

    def plan(self, request: PlanRequest) -> PlanResult:
        """Search within the request's budget."""


class Memory(Protocol):
    """Remembers the last latents and the actions between them."""

    def begin(self, *, goal: State | None = None) -> None:
        """Begin a new episode: nothing that was seen before is read any more."""

    def aim(self, *, goal: State | None = None) -> None:
        """Go on towards another goal."""

    def see(self, latents: State, proprio: Annotated[Tensor, "B P"] | None = None) -> None:
        """Append what was just perceived, with proprioception if the robot tells it."""

    def unsee(self) -> None:
        """Take the last `see` back, if nothing was done since."""

    def did(self, action: Annotated[Tensor, "B A"]) -> None:
        """Append what was just done."""

    def read(self) -> Context:
        """The remembered context, oldest first."""


class GoalReader(Protocol):
    """Says where to go: from the goal image, and from what is seen on the way."""

    def reset(self, goal: Observation) -> Goal:
        """Read a new goal; the last frame counts."""

    def update(self, observation: Observation, state: State) -> Goal:
        """The goal as it is known now, after an observation and the state `B N D` that was perceived in it."""

    def did(self, action: Annotated[Tensor, "B A"]) -> None:
        """Take note of the action that follows the observation."""


class Agent(Protocol):
    """Acts towards a goal."""

    @property
    def last(self) -> StepLog | None:
        """What happened in the last step; None before the first one."""

    def reset(self, goal: Observation) -> None:
        """Begin an episode: encode the goal once and clear the memory."""

    def act(self, observation: Observation) -> Annotated[Tensor, "B A"]:
        """Choose the next action, in physical units."""


@runtime_checkable
class RobotEnv(Protocol):
    """A gymnasium environment that can also be copied and judged."""

    def state(self) -> np.ndarray:
        """The full physics state; `set_state(state())` changes nothing."""

    def set_state(self, state: np.ndarray) -> None:
        """Put the simulation into a recorded state."""

    def goal(self) -> Observation:
        """The goal image of this episode."""

    def success(self) -> bool:
        """Whether the goal is reached now."""


@dataclass(frozen=True)
class Field:
    """One recorded quantity: shape of a single step, dtype, unit, rate, and the log's own names of its axes (JSON)."""

    shape: tuple[int, ...]
    dtype: str
    unit: str = ""
    hz: float | None = None
    names: Any = None


class EpisodeStore(Protocol):
    """One log format."""

    lengths: Sequence[int]
    fields: Mapping[str, Field]

    def read(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, Any]:
        """The steps start..stop-1 of the named fields."""
