"""The terms of the intrinsic cost: goal, effort, change of action, limits, risk, uncertainty; each `B S H`.

They are frozen records of plain numbers, differentiable in rollout and plans, without anything to train.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor

from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Goal, Imagined, Plans, Rollout
from jepa_mpc.world_model.costs.goal import Gap, Metric, squared
from jepa_mpc.world_model.costs.intrinsic import StepCosts

Of = Literal["proprio", "sensors"]


@dataclass(frozen=True, kw_only=True)
class GoalDrive:
    """Distance of each imagined state from the goal: d(m(z_h), m(z_goal)).

    With a metric that reads a pose from latents (a frozen probe), it is the distance of poses.

    Args:
        distance: Maps two states `... N D` to `...`.
        metric: Maps states `... N D` to vectors `... M` in which the distance is taken, or None for the latents.
    """

    distance: Gap = squared
    metric: Metric | None = None

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> StepCosts:
        """Latents B S H N D and the goal's B N D -> cost B S H."""
        sizes = check_shape(rollout.latents, "B S H N D")
        check_shape(goal.latents, "B N D", B=sizes["B"], N=sizes["N"], D=sizes["D"])
        latents, wanted = rollout.latents, goal.latents[:, None, None]
        if self.metric is not None:
            latents, wanted = self.metric(latents)[..., None, :], self.metric(wanted)[..., None, :]
        return self.distance(latents, wanted)


@dataclass(frozen=True, kw_only=True)
class EffortDrive:
    """How large each action is: mean (a / scale)^2.

    Args:
        scale: The action of each axis that counts as 1, `A`; axes with 0 do not count. None is 1 for all.
    """

    scale: tuple[float, ...] | None = None

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> StepCosts:
        """Plans B S H A -> cost B S H."""
        return _scaled(plans, self.scale).square().mean(dim=-1)


@dataclass(frozen=True, kw_only=True)
class RateDrive:
    """How much each action differs from the one before: mean ((a_h - a_{h-1}) / scale)^2; 0 for the first.

    Args:
        scale: As in `EffortDrive`.
    """

    scale: tuple[float, ...] | None = None

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> StepCosts:
        """Plans B S H A -> cost B S H."""
        change = _scaled(plans[:, :, 1:] - plans[:, :, :-1], self.scale).square().mean(dim=-1)
        return torch.cat([torch.zeros_like(plans[:, :, :1, 0]), change], dim=2)


@dataclass(frozen=True, kw_only=True)
class RangeDrive:
    """How far predicted proprioception leaves a range: sum over the axes of max(0, low - v, v - high)^2 / unit^2.

    For joint limits give the joints, for the workspace the place of the hand.

    Args:
        low: Least value of each axis, in its unit.
        high: Greatest value of each axis.
        axes: Which entries of the proprioception (or of the simulator's sensors) these are.
        of: "proprio" or "sensors".
        unit: Excess that counts as 1, in the unit of the axes.

    Raises:
        ValueError: If the numbers differ in count, a range is empty, or `of` is unknown.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    axes: tuple[int, ...]
    of: Of = "proprio"
    unit: float = 1.0

    def __post_init__(self) -> None:
        if not len(self.low) == len(self.high) == len(self.axes) or not self.axes:
            raise ValueError(f"low, high and axes must have one length, got {self.low}, {self.high} and {self.axes}")
        if any(not low < high for low, high in zip(self.low, self.high, strict=True)) or self.unit <= 0:
            raise ValueError(f"need low < high on every axis and unit > 0, got {self.low}, {self.high}, {self.unit}")
        if self.of not in get_args(Of):
            raise ValueError(f"of must be one of {', '.join(get_args(Of))}, got {self.of!r}")

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> StepCosts:
        """Proprioception B S H P -> cost B S H.

        Raises:
            ValueError: If the rollout does not carry what is limited, or too few numbers of it.
        """
        values = rollout.proprio if self.of == "proprio" else rollout.sensors
        if values is None or values.shape[-1] <= max(self.axes):
            given = "none" if values is None else f"{values.shape[-1]} numbers"
            raise ValueError(
                f"this limit needs entry {max(self.axes)} of the predicted {self.of}, the rollout carries {given}: "
                "use dynamics that predict it (DeadReckoning adds the hand's place), or leave the limit out"
            )
        values = values[..., list(self.axes)]
        excess = torch.maximum(values.new_tensor(self.low) - values, values - values.new_tensor(self.high))
        return (excess.clamp(min=0) / self.unit).square().sum(dim=-1)


@dataclass(frozen=True, kw_only=True)
class RiskDrive:
    """Probability that something forbidden happens (a contact, say), read from latents by a frozen probe.

    Args:
        probe: Maps states `... N D` to probabilities `...`.
    """

    probe: Callable[[Tensor], Tensor]

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal) -> StepCosts:
        """Latents B S H N D -> cost B S H."""
        return self.probe(rollout.latents)


@dataclass(frozen=True, kw_only=True)
class DoubtDrive:
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


def _scaled(actions: Annotated[Tensor, "... A"], scale: tuple[float, ...] | None) -> Tensor:
    """Actions in units of the scale; axes with scale 0 become 0."""
    if scale is None:
        return actions
    return actions * actions.new_tensor([1 / size if size > 0 else 0.0 for size in scale])
