"""Step costs other than the goal: effort, action change, limits, risk, uncertainty.

They are frozen records, differentiable in rollout and plans, without trainable parameters.
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
    """Size of each action: mean (a / scale)^2.

    Args:
        scale: Unit of each axis, `A` (such as half the width of the box), or None for 1; axes with scale 0 are ignored.
    """

    scale: Annotated[Tensor, "A"] | None = None
    _inverse: Tensor | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_inverse", _inverse(self.scale))

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> Annotated[Tensor, "B S H A"]:
        """Plans B S H A -> the term of each axis; their mean is the cost of a step."""
        return _scaled(plans, self._inverse).square()


@dataclass(frozen=True, kw_only=True, eq=False)
class ActionRate:
    """Change of each action from the previous one: mean ((a_h - a_{h-1}) / scale)^2; 0 for the first.

    Args:
        scale: As in `Effort`.
    """

    scale: Annotated[Tensor, "A"] | None = None
    _inverse: Tensor | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_inverse", _inverse(self.scale))

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> Annotated[Tensor, "B S H A"]:
        """Plans B S H A -> the term of each axis; their mean is the cost of a step."""
        change = _scaled(plans[:, :, 1:] - plans[:, :, :-1], self._inverse).square()
        return torch.cat([torch.zeros_like(plans[:, :, :1]), change], dim=2)


@dataclass(frozen=True, kw_only=True)
class RangeLimit:
    """Range limits on predicted proprioception (joint angles, hand position) or simulator sensors.

        g = (low - v_h) / unit and (v_h - high) / unit, for each axis;   cost = sum over the axes of max(0, g)^2

    As a step cost it is a penalty; as a limit of `ConstrainedCost` (by its `readings`) it is a constraint.

    Args:
        low: Minimum of each axis, in its unit.
        high: Maximum of each axis.
        axes: Indices in the proprioception or the sensors.
        of: "proprio" or "sensors".
        unit: Violation that counts as 1, in the unit of the axes; by default half the range of each axis.

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
            ValueError: If the rollout lacks the limited quantity, or has too few entries.
        """
        below, above = self._beyond(rollout)
        return (torch.maximum(below, above).clamp(min=0) / self._unit(below)).square().sum(dim=-1)

    def readings(self, rollout: Rollout, plans: Plans, goal: Goal) -> Annotated[Tensor, "B S H Q"]:
        """Constraint values g of each step (Q: twice the axes), satisfied where g <= 0; raises as the call does."""
        beyond = self._beyond(rollout)
        return torch.cat([way / self._unit(way) for way in beyond], dim=-1)

    def _beyond(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Distance of each axis below and above its range; negative inside."""
        values = rollout.proprio if self.of == "proprio" else rollout.sensors
        if values is None or values.shape[-1] <= max(self.axes):
            given = "none" if values is None else f"{values.shape[-1]} numbers"
            raise ValueError(
                f"this limit needs entry {max(self.axes)} of the predicted {self.of}, the rollout carries {given}: "
                "use dynamics that predict it (DeadReckoning adds the hand position), or omit the limit"
            )
        values = values[..., list(self.axes)]
        return values.new_tensor(self.low) - values, values - values.new_tensor(self.high)

    def _unit(self, like: Tensor) -> float | Tensor:
        return (like.new_tensor(self.high) - like.new_tensor(self.low)) / 2 if self.unit is None else self.unit


@dataclass(frozen=True, kw_only=True)
class Risk:
    """Probability of an undesired event (such as a contact), predicted from latents by a frozen probe.

    Args:
        probe: Maps states `... N D` to probabilities `...`.
    """

    probe: Callable[[Tensor], Tensor]

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> StepCosts:
        """Latents B S H N D -> cost B S H."""
        return self.probe(rollout.latents)


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """Disagreement of an ensemble, as given by the dynamics; a negative weight rewards it."""

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> StepCosts:
        """Disagreement B S H -> cost B S H.

        Raises:
            ValueError: If the dynamics do not provide it.
        """
        if rollout.disagreement is None:
            raise ValueError("the rollout carries no disagreement: this term needs an ensemble of predictors")
        return rollout.disagreement


@dataclass(frozen=True, kw_only=True)
class MeasureDoubt:
    """Disagreement of ensemble members with separate latents about the displacement to the goal, in m^2.

        d_e = m_e(z_e) - m_e(z_goal, e);   cost = sum over the axes of the variance of d_e over the members

    Args:
        heads: Each member's map from its own tokens `... N D` to positions `... axes` (m).

    Raises:
        ValueError: If there are fewer than two.
    """

    heads: Sequence[Metric]

    def __post_init__(self) -> None:
        if len(self.heads) < 2:
            raise ValueError(f"a disagreement needs two members or more, got {len(self.heads)}")

    def of(self, latents: Annotated[Tensor, "... N D"], goal: Annotated[Tensor, "... N D"]) -> Tensor:
        """Disagreement about the displacement from states to goals `... N D` -> `...`."""
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
    """1 / scale, with 0 where the scale is 0."""
    return None if scale is None else torch.where(scale > 0, 1 / torch.where(scale > 0, scale, 1.0), 0.0)


def _scaled(actions: Annotated[Tensor, "... A"], inverse: Tensor | None) -> Tensor:
    return actions if inverse is None else actions * inverse
