"""Several predictors over one encoder: combined rollouts, their disagreement, and costs over particles.

disagreement_h = mean over tokens and width of the variance of z_h over the members, divided by that of training
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, get_args

import torch
from torch import Generator, Tensor

from jepa_mpc.interfaces import Bounded, Cost, Dynamics
from jepa_mpc.types import Context, Costs, Goal, Imagined, Plans, Rollout, Scores
from jepa_mpc.world_model.costs.constraints import costs_of

Mixing = Literal["mean", "ts1", "tsinf"]


class PredictorEnsemble:
    """Dynamics of several members over the same latents.

    With several particles, each candidate is rolled out P times, its particles adjacent along S (`B S*P H N D`);
    `OverParticles` evaluates them. Particles are distributed over the members as evenly as possible.

    Args:
        members: Dynamics with the same latents.
        mixing: "mean", "ts1" or "tsinf" (see `world_model.dynamics.learned.ensemble`).
        particles: Futures per candidate (P); 1 with "mean", which is deterministic.
        generator: Draws the members, on the device of the plans; not needed by "mean".
        variance: Variance of the latents in training; divides the disagreement.

    Raises:
        ValueError: If there are no members, the mixing is unknown, or a number does not fit it.

    Reference: Chua et al. 2018, arXiv:1805.12114, section 4.
    """

    def __init__(
        self,
        members: Sequence[Dynamics],
        *,
        mixing: Mixing = "mean",
        particles: int = 1,
        generator: Generator | None = None,
        variance: float = 1.0,
    ) -> None:
        if not members:
            raise ValueError("an ensemble needs at least one member")
        if mixing not in get_args(Mixing):
            raise ValueError(f"mixing must be one of {', '.join(get_args(Mixing))}, got {mixing!r}")
        if particles < 1 or not variance > 0 or (mixing == "mean" and particles > 1):
            raise ValueError(
                f"need variance > 0 and particles >= 1 (1 with 'mean'), got {variance} and {particles} with {mixing!r}"
            )
        if mixing != "mean" and generator is None:
            raise ValueError(f"mixing={mixing!r} draws members: give a generator")
        self.members, self.mixing, self.particles = tuple(members), mixing, particles
        self.generator, self.variance = generator, variance

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """Roll out plans `B S H A`: latents `B S*P H N D`, and the members' disagreement `B S*P H`.

        The disagreement compares one step of every member from the same state, for each mixing.
        """
        plans = plans.repeat_interleave(self.particles, dim=1)
        batch, candidates, horizon, _ = plans.shape
        follow = self._draw(batch, candidates, horizon, plans.device)
        past = _flattened(context, candidates)
        latents, doubts = [], []
        for step in range(horizon):
            action = plans[:, :, step].flatten(0, 1)[:, None, None]  # (B S, 1, 1, A)
            answers = torch.stack([m.rollout(past, action).latents[:, 0, 0] for m in self.members], dim=1)
            state = answers.mean(dim=1) if follow is None else _picked(answers, follow[..., step].flatten())
            doubts.append(answers.var(dim=1, correction=0).mean(dim=(-2, -1)) / self.variance)
            latents.append(state)
            past = Context(
                latents=torch.cat([past.latents, state[:, None]], dim=1),
                actions=torch.cat([past.actions, action[:, 0]], dim=1),
            )
        shape = (batch, candidates)
        return Rollout(
            latents=torch.stack(latents, dim=1).unflatten(0, shape),
            disagreement=torch.stack(doubts, dim=1).unflatten(0, shape),
        )

    def at_once(self, context: Context, horizon: int) -> int:
        """Candidates per world within the memory limit of every member."""
        rooms = [member.at_once(context, horizon) for member in self.members if isinstance(member, Bounded)]
        return max(1, min(rooms, default=2**20) // (self.particles * len(self.members)))

    def _draw(self, batch: int, rows: int, horizon: int, device: torch.device) -> Tensor | None:
        """The member that each particle follows at each step `B S*P H`; None for the mean."""
        if self.mixing == "mean":
            return None
        count, steps = len(self.members), horizon if self.mixing == "ts1" else 1
        shape = (batch, rows // self.particles, 1, steps)
        first = torch.randint(count, shape, generator=self.generator, device=device)
        turn = torch.arange(self.particles, device=device)[:, None]
        return ((first + turn) % count).flatten(1, 2).expand(-1, -1, horizon)


@dataclass(frozen=True, kw_only=True)
class OverParticles:
    """A cost over the particles of each candidate: their mean, or the mean of the worst ones.

        alpha = 1: mean;   alpha < 1: CVaR, the mean of the most expensive alpha P particles (at least one)

    Args:
        cost: Cost of one future.
        alpha: Share of the particles that counts.

    Raises:
        ValueError: If alpha is not in (0, 1].
    """

    cost: Cost
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha must be in (0, 1], got {self.alpha}")

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> Costs:
        """Futures `B S*P H N D` of plans `B S H A` -> cost B S.

        Raises:
            ValueError: If the number of futures is not divisible by that of the plans, or the cost has constraints.
        """
        particles, rest = divmod(rollout.latents.shape[1], plans.shape[1])
        if rest or not particles:
            raise ValueError(f"{rollout.latents.shape[1]} futures are not divisible by {plans.shape[1]} plans")
        judged = self.cost(rollout, plans.repeat_interleave(particles, dim=1), goal)
        if isinstance(judged, Scores):
            raise ValueError("constraints of several particles have no single value: use one particle")
        each = costs_of(judged).unflatten(1, (plans.shape[1], particles))
        worst = max(1, round(self.alpha * particles))
        return each.topk(worst, dim=-1).values.mean(dim=-1)


def _flattened(context: Context, candidates: int) -> Context:
    """Repeat the context for each candidate: `B T ...` -> `B*S T ...`."""
    wide = replace(context, proprio=None)
    return Context(
        latents=wide.latents.repeat_interleave(candidates, dim=0),
        actions=wide.actions.repeat_interleave(candidates, dim=0),
    )


def _picked(answers: Annotated[Tensor, "G E N D"], member: Annotated[Tensor, "G"]) -> Annotated[Tensor, "G N D"]:
    """Select one member's prediction for each row."""
    return answers[torch.arange(len(answers), device=answers.device), member]


def spread(latents: Imagined) -> float:
    """Variance of latents over everything but tokens and width, averaged over these: the argument `variance`."""
    return float(latents.flatten(0, -3).var(dim=0, correction=0).mean())
