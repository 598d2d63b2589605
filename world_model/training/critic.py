"""Training of a critic from trajectories: states, goals, targets and loss.

    loss = mean of w |tau - [target < TC]| huber(target - TC)           tau below 1/2 is optimistic

Goals are set in hindsight (a later state of the same episode; Andrychowicz et al. 2017, arXiv:1707.01495) or drawn from
the same lab, and the frozen intrinsic cost is recomputed for them: a log without rewards is sufficient. A trajectory
ends where it reaches its goal. Asymmetric loss: Kostrikov et al. 2021, arXiv:2110.06169.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from jepa_mpc.interfaces import Batch
from jepa_mpc.types import Goal, Loss, Rollout
from jepa_mpc.world_model.costs.critic import Critic
from jepa_mpc.world_model.costs.intrinsic import IntrinsicCost
from jepa_mpc.world_model.memory.hindsight import LatentLog
from jepa_mpc.world_model.training.critic_targets import bootstrapped, returns

Form = Literal["delayed", "sum", "td"]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The critic's prediction target: cost, form and horizon.

    Args:
        intrinsic: The frozen cost.
        weights: u of each term.
        form: "delayed", "sum" or "td" (`critic_targets`).
        steps: Delay d, length n of the sum, or steps before the bootstrap of the td form.
        discount: gamma of the sum and td forms.

    Raises:
        ValueError: If the form is unknown or a number is out of range.
    """

    intrinsic: IntrinsicCost
    weights: Mapping[str, float]
    form: Form = "td"
    steps: int = 1
    discount: float = 0.95

    def __post_init__(self) -> None:
        self.intrinsic.check_weights(self.weights)
        if self.form not in get_args(Form):
            raise ValueError(f"form must be one of {', '.join(get_args(Form))}, got {self.form!r}")
        if self.steps < 1 or not 0 < self.discount <= 1:
            raise ValueError(f"need steps >= 1 and 0 < discount <= 1, got {self.steps} and {self.discount}")

    @torch.no_grad()
    def costs(self, states: Annotated[Tensor, "B H N D"], actions: Tensor, goal: Tensor) -> Annotated[Tensor, "B H"]:
        """IC of states `B H N D` and the actions `B H A` that led to them, for goals `B N D`."""
        rollout = Rollout(latents=states[:, None], disagreement=states.new_zeros(states.shape[0], 1, states.shape[1]))
        return self.intrinsic(rollout, actions[:, None], Goal(latents=goal), weights=self.weights)[:, 0]


@dataclass(frozen=True, kw_only=True)
class CriticLessons:
    """Draws batches for a critic from a log of latents (a recorded one, or a replay buffer's `log()`).

    Args:
        log: Source of states.
        judgement: The critic's prediction target.
        batch: Batch size B.
        later: Share of goals that are later states of the same episode; the others are any states of the same lab.
        max_steps: Maximum number of steps to a later-state goal.
    """

    log: LatentLog
    judgement: Judgement
    batch: int = 256
    later: float = 0.5
    max_steps: int = 50
    _rows: Mapping[str, Tensor] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.batch < 1 or not 0 <= self.later <= 1 or self.max_steps < 1:
            raise ValueError(f"need batch >= 1, later in [0, 1] and max_steps >= 1, got {self}")
        lengths = self.log.offsets.diff()
        last = torch.repeat_interleave(self.log.offsets[1:] - 1, lengths)
        rows = torch.arange(len(self.log.latents))
        starts = rows[rows + self.judgement.steps <= last]
        if not len(starts):
            raise ValueError(f"no episode is longer than the {self.judgement.steps} steps of the target")
        object.__setattr__(self, "_rows", {"starts": starts, "last": last})

    def __call__(self, generator: Generator) -> dict[str, Tensor]:
        """One batch: state, goal, next `B N D`, costs `B H`, over `B H`."""
        count, form = self.judgement.steps, self.judgement
        starts = self._rows["starts"]
        start = starts[torch.randint(len(starts), (self.batch,), generator=generator)]
        goal_at, elsewhere = self._goals(start, generator)
        ahead = start[:, None] + 1 + torch.arange(count)  # (B, H)
        goal = torch.where(goal_at[:, None, None] < 0, elsewhere, self.log.latents[goal_at.clamp(min=0)])
        over = (ahead >= goal_at[:, None]) & (goal_at[:, None] >= 0)
        costs = form.costs(self.log.latents[ahead], self.log.actions[ahead - 1], goal)
        arrived_before = (ahead > goal_at[:, None]) & (goal_at[:, None] >= 0)
        return {
            "state": self.log.latents[start],
            "goal": goal,
            "next": self.log.latents[ahead[:, -1]],
            "costs": torch.where(arrived_before, 0.0, costs),
            "over": over,
        }

    def _goals(self, start: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Rows of the goals that are later states (-1 for the others), and states of the same lab."""
        room = (self._rows["last"][start] - start).clamp(max=self.max_steps)
        share = torch.rand(len(start), generator=generator)
        chosen = start + 1 + (share * room).long().clamp(max=room - 1)
        is_later = torch.rand(len(start), generator=generator) < self.later
        return torch.where(is_later, chosen, -1), self._elsewhere(start, generator)

    def _elsewhere(self, start: Tensor, generator: Generator) -> Tensor:
        """A state of the same lab for each start `B N D`."""
        first, count = self.log.span_of_place(start)
        there = first + (torch.rand(len(start), generator=generator) * count).long().clamp(max=count - 1)
        return self.log.latents[self.log.by_place[there]]


class CriticObjective(nn.Module):
    """The loss of a critic, for `fit` and for online learning.

    Only the critic is trained: states carry no gradient, the intrinsic cost is frozen, and a td target bootstraps from
    an EMA copy.

    Args:
        critic: The critic.
        form: As in `Judgement`.
        discount: gamma, as there.
        expectile: tau; below 1/2 high targets get less weight (optimistic), 1/2 is the mean.
        momentum: Momentum of the EMA copy, per step.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        critic: Critic,
        *,
        form: Form = "td",
        discount: float = 0.95,
        expectile: float = 0.5,
        momentum: float = 0.995,
    ) -> None:
        super().__init__()
        if not 0 < expectile < 1 or not 0 <= momentum < 1 or form not in get_args(Form):
            raise ValueError(
                f"need expectile in (0, 1), momentum in [0, 1) and a known form, got {expectile}, {momentum}, {form!r}"
            )
        self.critic, self.form, self.discount = critic, form, discount
        self.expectile, self.momentum = expectile, momentum
        self.slow = copy.deepcopy(critic).requires_grad_(False)

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of a batch.

        Args:
            batch: As drawn by `CriticLessons`; or state, goal `B N D` and `target` `B`. `weight` `B` is optional
                (predicted states have at most half weight).
            generator: Unused.
        """
        target = batch["target"] if "target" in batch else self._target(batch)
        guess = self.critic(batch["state"].detach(), batch["goal"].detach(), batch.get("proprio"), batch.get("delay"))
        gap = (target.detach() - guess) / self.critic.unit
        side = torch.where(gap < 0, 1 - self.expectile, self.expectile)
        each = 2 * side * F.huber_loss(gap, torch.zeros_like(gap), reduction="none")
        weight = batch.get("weight")
        total = each.mean() if weight is None else (weight * each).sum() / weight.sum().clamp(min=1e-6)
        terms = {"error": gap.detach().abs().mean() * self.critic.unit, "target": target.detach().mean()}
        return Loss(total=total, terms=terms)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Update the EMA copy."""
        for slow, own in zip(self.slow.parameters(), self.critic.parameters(), strict=True):
            slow.lerp_(own, 1 - self.momentum)

    @torch.no_grad()
    def _target(self, batch: Batch) -> Annotated[Tensor, "B"]:
        if self.form == "delayed":
            return batch["costs"][:, -1]
        if self.form == "sum":
            return returns(batch["costs"], discount=self.discount)
        beyond = self.slow(batch["next"], batch["goal"], batch.get("next_proprio"))
        return bootstrapped(batch["costs"], beyond, discount=self.discount, over=batch["over"])
