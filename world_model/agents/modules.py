"""The optional parts of an agent with two modes, and the small tools of its step."""

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
    """The optional parts of an agent; each one that is missing is simply not there.

    Args:
        actor: The policy (Mode-1), and where a search begins (Mode-2).
        arbitration: Chooses between the modes; without it the agent plans, or does what the configurator insists on.
        critic: Guesses what comes after a plan's end.
        learner: Trains the critic on the way, from the experience.
        experience: The long memory: predictions to compare with, costs to learn from, novelty.
        doubt: How far an ensemble is apart about present states and goals `B N D` -> `B`.
        blind: Worlds whose newest picture is of no use `B` (bool); what had been predicted stands in for it.
        worst: Where the dynamics imagine several particles: the share of the dearest ones that counts (CVaR).
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
    """A proposal that answers the same question but once."""

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
    """Seconds since the last look, by the name of the stage."""

    def __init__(self) -> None:
        self.spans: dict[str, float] = {"plan": 0.0}
        self._last = perf_counter()

    def __call__(self, stage: str) -> None:
        """End of a stage."""
        now = perf_counter()
        self.spans[stage], self._last = now - self._last, now


def fitted(plan: Plan, horizon: int) -> Plan:
    """The plan cut, or held at its last action, to another length."""
    return plan[:, torch.arange(horizon, device=plan.device).clamp(max=plan.shape[1] - 1)]


def worst(values: Annotated[Tensor, "B"]) -> float:
    """The greatest value that is known; NaN if none is."""
    known = values[~values.isnan()]
    return float(known.max()) if len(known) else float("nan")
