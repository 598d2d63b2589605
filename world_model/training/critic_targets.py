"""What a critic is to predict, from the intrinsic costs IC_0..IC_{T-1} along a course.

    delayed   IC_{t+d}
    sum       G_t = sum over k = 1..n of gamma^{k-1} IC_{t+k}
    td        sum over k = 1..n of gamma^{k-1} IC_{t+k} + gamma^n TC(s_{t+n}),    nothing of it after the end

Steps whose target would look past what was recorded have none: they are False in the mask.
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
    """Targets `B T`, and which of them exist `B T` (bool)."""

    values: Course
    known: Course


def delayed(costs: Course, *, delay: int, lengths: Annotated[Tensor, "B"] | None = None) -> Targets:
    """The cost d steps on: IC_{t+d}.

    Args:
        costs: IC of each step `B T`.
        delay: d, from 1.
        lengths: Steps that each course really has; all T by default.

    Raises:
        ValueError: If the delay is below 1.
    """
    return _windowed(costs, delay, lengths, lambda window: window[..., -1])


def discounted_sum(
    costs: Course, *, steps: int, discount: float, lengths: Annotated[Tensor, "B"] | None = None
) -> Targets:
    """What n steps cost together: sum over k = 1..n of gamma^{k-1} IC_{t+k}.

    Args:
        costs: IC of each step `B T`.
        steps: n, from 1.
        discount: gamma.
        lengths: Steps that each course really has; all T by default.

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
    """Costs of the next n steps and the critic's guess after them, up to the end of the course.

        IC_{t+1} + gamma (1 - done_{t+1}) (IC_{t+2} + ... + gamma (1 - done_{t+n}) TC(s_{t+n}))

    Args:
        costs: IC_{t+1} .. IC_{t+n}, `... H` with H = n.
        beyond: TC(s_{t+n}) `...`, of the slow copy of the critic.
        discount: gamma.
        over: Whether the course ended with that step `... H` (bool): nothing after it counts.
    """
    total = beyond
    for step in reversed(range(costs.shape[-1])):
        rest = total if over is None else torch.where(over[..., step], 0.0, total)
        total = costs[..., step] + discount * rest
    return total


def returns(costs: Annotated[Tensor, "... H"], *, discount: float) -> Tensor:
    """Discounted sum over the last axis; its first entry counts fully."""
    return (costs * discount ** torch.arange(costs.shape[-1], device=costs.device, dtype=costs.dtype)).sum(dim=-1)


def _windowed(costs: Course, ahead: int, lengths: Tensor | None, reduce: Callable[[Tensor], Tensor]) -> Targets:
    """Reduce IC_{t+1} .. IC_{t+ahead} of each step t."""
    if ahead < 1:
        raise ValueError(f"a target looks ahead by 1 step or more, got {ahead}")
    batch, steps = costs.shape
    ends = torch.full((batch,), steps, device=costs.device) if lengths is None else lengths
    known = torch.arange(steps, device=costs.device) + ahead < ends[:, None]
    if steps <= ahead:
        return Targets(values=torch.zeros_like(costs), known=known)
    found = reduce(costs[:, 1:].unfold(1, ahead, 1))  # (B, T - ahead, ahead) -> (B, T - ahead)
    values = torch.cat([found, torch.zeros_like(costs[:, :ahead])], dim=1)
    return Targets(values=torch.where(known, values, 0.0), known=known)
