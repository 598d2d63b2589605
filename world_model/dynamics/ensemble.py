"""Ensembles of world models: every member encodes and predicts separately; their position heads are averaged.

    z = (z_1, ..., z_M) concatenated as tokens;   p(z) = 1/M sum over m of p_m(z_m)

Members trained with different seeds make different errors on images unlike those of the log; the mean of their
estimates has a smaller error (Lakshminarayanan et al. 2017, arXiv:1612.01474). Members never see each other's latents.

Members that share one encoder use the same latents; `PredictorEnsemble` combines their predictions step by step:

    mean    every step continues from the mean of all members' predictions
    ts1     every step of a candidate follows one member, redrawn each time
    tsinf   every candidate follows one member from start to end

Reference: Chua et al. 2018, arXiv:1805.12114, section 4 (trajectory sampling).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Protocol, TypeVar

import torch
from torch import Tensor

from jepa_mpc.interfaces import Bounded, Dynamics, Perception
from jepa_mpc.types import Context, Latents, Observation, Plans, Rollout

Member = TypeVar("Member")


class Imagines(Dynamics, Bounded, Protocol):
    """Dynamics with a memory limit."""


class EnsemblePerception:
    """The latents of all members, concatenated as tokens."""

    def __init__(self, members: Sequence[Perception]) -> None:
        self.members = _some(members)

    def __call__(self, observation: Observation) -> Latents:
        """Frames `B T C h w` to latents `B T N D`, N the total number of tokens."""
        return torch.cat([member(observation) for member in self.members], dim=2)


class EnsembleDynamics:
    """Each member rolls out its own tokens.

    Args:
        members: As many as in the perception, in the same order, with equally many tokens each.
    """

    def __init__(self, members: Sequence[Imagines]) -> None:
        self.members = _some(members)

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """Roll out plans `B S H A`: latents `B S H N D`.

        Raises:
            ValueError: If the tokens are not divisible by the number of members.
        """
        futures = [member.rollout(own, plans) for member, own in self._shared_out(context)]
        latents = torch.cat([future.latents for future in futures], dim=3)
        return Rollout(latents=latents, proprio=futures[0].proprio)

    def at_once(self, context: Context, horizon: int) -> int:
        """Candidates per world within the memory limit of every member (members run one after another)."""
        return min(member.at_once(own, horizon) for member, own in self._shared_out(context))

    def _shared_out(self, context: Context) -> list[tuple[Imagines, Context]]:
        tokens, count = context.latents.shape[2], len(self.members)
        if tokens % count:
            raise ValueError(f"{tokens} tokens are not divisible by {count} members")
        shares = context.latents.chunk(count, dim=2)
        return [(m, replace(context, latents=share)) for m, share in zip(self.members, shares, strict=True)]


class MeanMeasure:
    """The mean of the members' position heads, each applied to its own tokens."""

    def __init__(self, heads: Sequence[Callable[[Tensor], Tensor]]) -> None:
        self.heads = _some(heads)

    def __call__(self, latents: Annotated[Tensor, "... N D"]) -> Annotated[Tensor, "... axes"]:
        """Latents of all members to one estimate."""
        shares = latents.chunk(len(self.heads), dim=-2)
        return torch.stack([head(share) for head, share in zip(self.heads, shares, strict=True)]).mean(dim=0)


def _some(members: Sequence[Member]) -> tuple[Member, ...]:
    if not members:
        raise ValueError("an ensemble needs at least one member")
    return tuple(members)
