"""The energy of a plan: intrinsic cost along it, plus the critic's estimate of the cost after its end.

E(a_0..a_{H-1}) = sum over h = 1..H of gamma^{h-1} IC(z_h, a_{h-1})  +  v gamma^H TC(z_H)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.costs import Discounted
from jepa_mpc.types import Costs, Goal, Plans, Rollout, State
from jepa_mpc.world_model.costs.intrinsic import IntrinsicCost

TrainableCost = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""States `... N D`, goals `... N D`, proprioception `... P` or None -> expected cost `...`; `critic.Critic` is one."""

CRITIC = "critic"


@dataclass(frozen=True, kw_only=True)
class Energy:
    """A cost of plans (`jepa_mpc.interfaces.Cost`): C(s) = IC(s) + TC(s).

    Args:
        intrinsic: The frozen cost terms.
        weights: u of each term.
        critic: The trainable cost, or None.
        critic_weight: v.
        discount: gamma.
        tokens: Mask of the tokens of a state that count (True), or None for all; the others are replaced by the goal's.

    Raises:
        UnknownName: If a weight has no term.
        ValueError: If a weight is missing or below its floor, or the critic has a weight but does not exist.
    """

    intrinsic: IntrinsicCost
    weights: Mapping[str, float]
    critic: TrainableCost | None = None
    critic_weight: float = 0.0
    discount: float = 1.0
    tokens: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        self.intrinsic.check_weights(self.weights)
        if self.critic is None and self.critic_weight > 0:
            raise ValueError(
                f"the critic has the weight {self.critic_weight}, but there is no critic: train one, or set 0"
            )

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> Costs:
        """Plans `B S H A` and their futures -> energy `B S`."""
        rollout = self._attended(rollout, goal)
        way = self.intrinsic(rollout, plans, goal, weights=self.weights)
        energy = self._reduction(way)
        return energy if self.critic_weight == 0 else energy + self._future(rollout, goal)

    def terms(self, rollout: Rollout, plans: Plans, goal: Goal) -> dict[str, Costs]:
        """The weighted terms of the energy `B S`, by name; their sum is the energy."""
        rollout = self._attended(rollout, goal)
        steps = self.intrinsic.terms(rollout, plans, goal)
        shares = {name: self.weights[name] * self._reduction(cost) for name, cost in steps.items()}
        if self.critic_weight > 0:
            shares[CRITIC] = self._future(rollout, goal)
        return shares

    def at(self, state: State, still: Plans, goal: Goal, proprio: Annotated[Tensor, "B P"] | None = None) -> Tensor:
        """Weighted intrinsic cost `B` of a real state `B N D` under the zero action (`still`, `B 1 1 A`)."""
        felt = None if proprio is None else proprio[:, None, None]
        doubt = state.new_zeros(state.shape[0], 1, 1)
        seen = Rollout(latents=state[:, None, None], proprio=felt, disagreement=doubt)
        return self.intrinsic(self._attended(seen, goal), still, goal, weights=self.weights)[:, 0, 0]

    def _future(self, rollout: Rollout, goal: Goal) -> Costs:
        """The critic term at the end of each plan: v gamma^H TC."""
        assert self.critic is not None
        ends = rollout.latents[:, :, -1]  # (B, S, N, D)
        felt = None if rollout.proprio is None else rollout.proprio[:, :, -1]
        expected = self.critic(ends, goal.latents[:, None].expand_as(ends), felt)
        return self._reduction.after(self.critic_weight * expected, rollout.latents.shape[2])

    @property
    def _reduction(self) -> Discounted:
        return Discounted(self.discount)

    def _attended(self, rollout: Rollout, goal: Goal) -> Rollout:
        """The rollout with masked-out tokens replaced by the goal's."""
        if self.tokens is None:
            return rollout
        if len(self.tokens) != rollout.latents.shape[3]:
            raise ValueError(
                f"the token mask has {len(self.tokens)} entries, a state has {rollout.latents.shape[3]} tokens"
            )
        counts = torch.tensor(self.tokens, device=rollout.latents.device)[:, None]
        return replace(rollout, latents=torch.where(counts, rollout.latents, goal.latents[:, None, None]))
