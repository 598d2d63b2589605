"""Step costs beside the goal: effort, change of action, limits, risk, uncertainty.

They are frozen records, differentiable in rollout and plans, without anything to train.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor

from jepa_mpc.costs import StepCosts
from jepa_mpc.types import Goal, Imagined, Plans, Rollout
from jepa_mpc.world_model.costs.goal import Metric

Of = Literal["proprio", "sensors"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Effort:
    """How large each action is: mean (a / scale)^2.

    Args:
        scale: The action of each axis that counts as 1, `A` (half the width of the box, say), or None for 1; axes with
            scale 0 do not count.
    """

    scale: Annotated[Tensor, "A"] | None = None
    _inverse: Tensor | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_inverse", _inverse(self.scale))

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> Annotated[Tensor, "B S H A"]:
        """Plans B S H A -> the share of each axis, whose mean is the cost of a step."""
        return _scaled(plans, self._inverse).square()


@dataclass(frozen=True, kw_only=True, eq=False)
class ActionRate:
    """How much each action differs from the one before: mean ((a_h - a_{h-1}) / scale)^2; 0 for the first.

    Args:
        scale: As in `Effort`.
    """

    scale: Annotated[Tensor, "A"] | None = None
    _inverse: Tensor | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_inverse", _inverse(self.scale))

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> Annotated[Tensor, "B S H A"]:
        """Plans B S H A -> the share of each axis, whose mean is the cost of a step."""
        change = _scaled(plans[:, :, 1:] - plans[:, :, :-1], self._inverse).square()
        return torch.cat([torch.zeros_like(plans[:, :, :1]), change], dim=2)


@dataclass(frozen=True, kw_only=True)
class RangeLimit:
    """Predicted proprioception (joint angles, the hand's place) or simulator sensors stay in a range.

        g = (low - v_h) / unit and (v_h - high) / unit, for each axis;   cost = sum over the axes of max(0, g)^2

    As a step cost it is a price, as a limit of `ConstrainedCost` (by its `readings`) a bound.

    Args:
        low: Least value of each axis, in its unit.
        high: Greatest value of each axis.
        axes: Which entries of the proprioception or of the sensors these are.
        of: "proprio" or "sensors".
        unit: Excess that counts as 1, in the unit of the axes; by default half the range of each axis.

    Raises:
        ValueError: If the numbers differ in count, a range is empty, or `of` is unknown.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    axes: tuple[int, ...]
    of: Of = "proprio"
    unit: float | None = None

    def __post_init__(self) -> None:
        if not len(self.low) == len(self.high) == len(self.axes) or not self.axes:
            raise ValueError(f"low, high and axes must have one length, got {self.low}, {self.high} and {self.axes}")
        if any(not low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"need low < high on every axis, got {self.low} and {self.high}")
        if self.unit is not None and not self.unit > 0:
            raise ValueError(f"need unit > 0, got {self.unit}")
        if self.of not in get_args(Of):
            raise ValueError(f"of must be one of {', '.join(get_args(Of))}, got {self.of!r}")

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> StepCosts:
        """Proprioception B S H P -> cost B S H.

        Raises:
            ValueError: If the rollout does not carry what is limited, or too few numbers of it.
        """
        below, above = self._beyond(rollout)
        return (torch.maximum(below, above).clamp(min=0) / self._unit(below)).square().sum(dim=-1)

    def readings(self, rollout: Rollout, plans: Plans, goal: Goal) -> Annotated[Tensor, "B S H Q"]:
        """Readings g of each step, Q twice the number of axes, met where g <= 0; raises as the call does."""
        beyond = self._beyond(rollout)
        return torch.cat([way / self._unit(way) for way in beyond], dim=-1)

    def _beyond(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """How far each axis is below and above its range; negative inside."""
        values = rollout.proprio if self.of == "proprio" else rollout.sensors
        if values is None or values.shape[-1] <= max(self.axes):
            given = "none" if values is None else f"{values.shape[-1]} numbers"
            raise ValueError(
                f"this limit needs entry {max(self.axes)} of the predicted {self.of}, the rollout carries {given}: "
                "use dynamics that predict it (DeadReckoning adds the hand's place), or leave the limit out"
            )
        values = values[..., list(self.axes)]
        return values.new_tensor(self.low) - values, values - values.new_tensor(self.high)

    def _unit(self, like: Tensor) -> float | Tensor:
        return (like.new_tensor(self.high) - like.new_tensor(self.low)) / 2 if self.unit is None else self.unit


@dataclass(frozen=True, kw_only=True)
class Risk:
    """Probability that something forbidden happens (a contact, say), read from latents by a frozen probe.

    Args:
        probe: Maps states `... N D` to probabilities `...`.
    """

    probe: Callable[[Tensor], Tensor]

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> StepCosts:
        """Latents B S H N D -> cost B S H."""
        return self.probe(rollout.latents)


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """How far the members of an ensemble are apart, as the dynamics tell it; avoided, or sought with a weight < 0."""

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> StepCosts:
        """Disagreement B S H -> cost B S H.

        Raises:
            ValueError: If the dynamics do not tell it.
        """
        if rollout.disagreement is None:
            raise ValueError("the rollout carries no disagreement: this term needs an ensemble of predictors")
        return rollout.disagreement


@dataclass(frozen=True, kw_only=True)
class MeasureDoubt:
    """How far members with latents of their own are apart about the way to the goal, in m^2.

        d_e = m_e(z_e) - m_e(z_goal, e);   cost = sum over the axes of the variance of d_e over the members

    Args:
        heads: Each member's map from its own tokens `... N D` to places `... axes` (m).

    Raises:
        ValueError: If there are fewer than two.
    """

    heads: Sequence[Metric]

    def __post_init__(self) -> None:
        if len(self.heads) < 2:
            raise ValueError(f"a disagreement needs two members or more, got {len(self.heads)}")

    def of(self, latents: Annotated[Tensor, "... N D"], goal: Annotated[Tensor, "... N D"]) -> Tensor:
        """Disagreement about the way from states to goals `... N D` -> `...`."""
        ways = [
            head(here) - head(there)
            for head, here, there in zip(
                self.heads, latents.chunk(len(self.heads), dim=-2), goal.chunk(len(self.heads), dim=-2), strict=True
            )
        ]
        return torch.stack(ways).var(dim=0, correction=0).sum(dim=-1)

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> StepCosts:
        """Latents B S H N D of all members -> cost B S H."""
        latents: Imagined = rollout.latents
        return self.of(latents, goal.latents[:, None, None])


def _inverse(scale: Tensor | None) -> Tensor | None:
    """1 / scale, and 0 where the scale is 0."""
    return None if scale is None else torch.where(scale > 0, 1 / torch.where(scale > 0, scale, 1.0), 0.0)


def _scaled(actions: Annotated[Tensor, "... A"], inverse: Tensor | None) -> Tensor:
    return actions if inverse is None else actions * inverse
