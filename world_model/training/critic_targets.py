"""Targets of a critic, from the intrinsic costs IC_0..IC_{T-1} along a trajectory.

    delayed   IC_{t+d}
    sum       G_t = sum over k = 1..n of gamma^{k-1} IC_{t+k}
    td        sum over k = 1..n of gamma^{k-1} IC_{t+k} + gamma^n TC(s_{t+n}),    no terms after the end

Steps whose target exceeds the recorded data have none: their mask is False.
Reference: LeCun 2022, A path towards autonomous machine intelligence, section 3.2 (the delayed form is his).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

Course = Annotated[Tensor, "B T"]


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Targets `B T`, and the mask of existing ones `B T` (bool)."""

    values: Course
    known: Course


def delayed(costs: Course, *, delay: int, lengths: Annotated[Tensor, "B"] | None = None) -> Targets:
    """The cost d steps later: IC_{t+d}.

    Args:
        costs: IC of each step `B T`.
        delay: d, from 1.
        lengths: Actual length of each trajectory; T by default.

    Raises:
        ValueError: If the delay is below 1.
    """
    return _windowed(costs, delay, lengths, lambda window: window[..., -1])


def discounted_sum(
    costs: Course, *, steps: int, discount: float, lengths: Annotated[Tensor, "B"] | None = None
) -> Targets:
    """The discounted cost of n steps: sum over k = 1..n of gamma^{k-1} IC_{t+k}.

    Args:
        costs: IC of each step `B T`.
        steps: n, from 1.
        discount: gamma.
        lengths: Actual length of each trajectory; T by default.

    Raises:
        ValueError: If n is below 1.
    """
    return _windowed(costs, steps, lengths, lambda window: returns(window, discount=discount))


def bootstrapped(
    costs: Annotated[Tensor, "... H"],
    beyond: Tensor,
    *,
    discount: float,
    over: Annotated[Tensor, "... H"] | None = None,
) -> Tensor:
    """Costs of the next n steps plus the critic's bootstrap, up to the end of the trajectory.

        IC_{t+1} + gamma (1 - done_{t+1}) (IC_{t+2} + ... + gamma (1 - done_{t+n}) TC(s_{t+n}))

    Args:
        costs: IC_{t+1} .. IC_{t+n}, `... H` with H = n.
        beyond: TC(s_{t+n}) `...`, of the critic's EMA copy.
        discount: gamma.
        over: Whether the trajectory ended with that step `... H` (bool): later steps are excluded.
    """
    total = beyond
    for step in reversed(range(costs.shape[-1])):
        rest = total if over is None else torch.where(over[..., step], 0.0, total)
        total = costs[..., step] + discount * rest
    return total


def returns(costs: Annotated[Tensor, "... H"], *, discount: float) -> Tensor:
    """Discounted sum over the last axis; the first entry has weight 1."""
    return (costs * discount ** torch.arange(costs.shape[-1], device=costs.device, dtype=costs.dtype)).sum(dim=-1)


def _windowed(costs: Course, ahead: int, lengths: Tensor | None, reduce: Callable[[Tensor], Tensor]) -> Targets:
    """Reduce IC_{t+1} .. IC_{t+ahead} of each step t."""
    if ahead < 1:
        raise ValueError(f"need at least 1 step, got {ahead}")
    batch, steps = costs.shape
    ends = torch.full((batch,), steps, device=costs.device) if lengths is None else lengths
    known = torch.arange(steps, device=costs.device) + ahead < ends[:, None]
    if steps <= ahead:
        return Targets(values=torch.zeros_like(costs), known=known)
    found = reduce(costs[:, 1:].unfold(1, ahead, 1))  # (B, T - ahead, ahead) -> (B, T - ahead)
    values = torch.cat([found, torch.zeros_like(costs[:, :ahead])], dim=1)
    return Targets(values=torch.where(known, values, 0.0), known=known)
