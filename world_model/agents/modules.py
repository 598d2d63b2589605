"""The optional modules of the two-mode agent, and helpers of its step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.interfaces import Proposal
from jepa_mpc.types import Context, Goal, Observation, Plan, Plans, State
from jepa_mpc.world_model.agents.arbitration import Arbitration
from jepa_mpc.world_model.costs.energy import TrainableCost
from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer
from jepa_mpc.world_model.training.critic_learner import CriticLearner

Doubt = Callable[[State, State], Annotated[Tensor, "B"]]


@dataclass(frozen=True, kw_only=True)
class Modules:
    """The optional modules of an agent; None for an absent one.

    Args:
        actor: The policy (Mode-1), and the proposal of a search (Mode-2).
        arbitration: Chooses the mode; without it the agent plans, or follows the configurator.
        critic: Predicts the cost after a plan's end.
        learner: Trains the critic online, from the experience.
        experience: The replay buffer: predictions to compare with, costs to learn from, novelty.
        doubt: Disagreement of an ensemble on current states and goals `B N D` -> `B`.
        blind: Mask of the worlds whose newest image is unusable `B` (bool); the prediction replaces it.
        worst: For dynamics with several particles: the share of the most expensive ones that counts (CVaR).
    """

    actor: Proposal | None = None
    arbitration: Arbitration | None = None
    critic: TrainableCost | None = None
    learner: CriticLearner | None = None
    experience: ReplayBuffer | None = None
    doubt: Doubt | None = None
    blind: Callable[[Observation], Annotated[Tensor, "B"]] | None = None
    worst: float = 1.0


class Once:
    """Caches a proposal for repeated calls with the same arguments."""

    def __init__(self, actor: Proposal) -> None:
        self.actor = actor
        self._asked: tuple[Tensor, Tensor, int] | None = None
        self._answer: Plans | None = None

    def __call__(self, context: Context, goal: Goal, *, horizon: int) -> Plans:
        """Candidate plans `B S H A`."""
        asked = (context.latents, goal.latents, horizon)
        same = self._asked is not None and all(a is b for a, b in zip(asked, self._asked, strict=True))
        if not same or self._answer is None:
            self._asked, self._answer = asked, self.actor(context, goal, horizon=horizon)
        return self._answer


class Stopwatch:
    """Seconds since the last call, by the name of the stage."""

    def __init__(self) -> None:
        self.spans: dict[str, float] = {"plan": 0.0}
        self._last = perf_counter()

    def __call__(self, stage: str) -> None:
        """End of a stage."""
        now = perf_counter()
        self.spans[stage], self._last = now - self._last, now


def fitted(plan: Plan, horizon: int) -> Plan:
    """The plan truncated, or padded with its last action, to another length."""
    return plan[:, torch.arange(horizon, device=plan.device).clamp(max=plan.shape[1] - 1)]


def worst(values: Annotated[Tensor, "B"]) -> float:
    """The maximum of the known values; NaN if all are unknown."""
    known = values[~values.isnan()]
    return float(known.max()) if len(known) else float("nan")
