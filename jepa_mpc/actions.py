"""The actions that a robot accepts: bounds per axis and limits on groups of axes; action blocks and time shifts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
from torch import Tensor

Norm = Literal["l2", "max"]


@dataclass(frozen=True, kw_only=True)
class ActionGroup:
    """A limit on the joint size of some axes: how far a hand moves, how far it turns.

        l2:  sqrt(sum of a_i^2) <= limit          max:  |a_i| <= limit for each i

    Args:
        name: Meaning of the axes, for messages.
        axes: Their indices in an action.
        limit: Largest size, in the unit of the axes.
        norm: "l2" for the length of the vector, "max" for its largest entry.

    Raises:
        ValueError: If axes are empty, repeated or negative, the limit is not positive and finite, or the norm is
            unknown.
    """

    name: str
    axes: tuple[int, ...]
    limit: float
    norm: Norm = "l2"

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(self.axes))
        if not self.axes or len(set(self.axes)) < len(self.axes) or min(self.axes) < 0:
            raise ValueError(f"action group {self.name!r} needs distinct axes >= 0, got {list(self.axes)}")
        if not 0 < self.limit < float("inf"):
            raise ValueError(f"action group {self.name!r} needs a positive, finite limit, got {self.limit}")
        if self.norm not in ("l2", "max"):
            raise ValueError(f"action group {self.name!r}: norm must be 'l2' or 'max', got {self.norm!r}")

    def size(self, actions: Tensor) -> Tensor:
        """Size of the group in each action `... A` -> `...`."""
        part = actions[..., list(self.axes)]
        return part.norm(dim=-1) if self.norm == "l2" else part.abs().amax(dim=-1)

    def moved(self, by: int) -> ActionGroup:
        """The same limit with all axis indices increased by `by`."""
        return replace(self, axes=tuple(axis + by for axis in self.axes))


@dataclass(frozen=True, kw_only=True)
class ActionBox:
    """The actions that the robot accepts, in physical units: an axis-aligned box with limits on groups of axes.

    An axis of zero width (low = high) is held fixed.

    Args:
        low: Smallest value of each axis `A`.
        high: Largest value of each axis `A`.
        groups: Limits on groups of axes. A group must allow the smallest action of the box (usually the zero action),
            and no axis may be in two groups.

    Raises:
        ValueError: If the bounds differ in shape, are not finite or cross, or the groups do not fit the box.
    """

    low: Annotated[Tensor, "A"]
    high: Annotated[Tensor, "A"]
    groups: tuple[ActionGroup, ...] = field(default=())
    _off_zero: tuple[ActionGroup, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        if self.low.shape != self.high.shape or self.low.dim() != 1:
            raise ValueError(
                f"action bounds must be two vectors of one length, got shapes {tuple(self.low.shape)} and "
                f"{tuple(self.high.shape)}"
            )
        if not bool(torch.isfinite(self.low).all() and torch.isfinite(self.high).all()):
            raise ValueError("action bounds must be finite: a planner samples between them")
        if bool((self.low > self.high).any()):
            axes = (self.low > self.high).nonzero().flatten().tolist()
            raise ValueError(f"action bounds cross (low > high) on axes {axes}")
        self._check_groups()

    @property
    def dim(self) -> int:
        """Number of action axes A."""
        return int(self.low.shape[0])

    def clip(self, actions: Tensor) -> Tensor:
        """The nearest accepted actions; the last axis of `actions` is A.

        A group above its limit is scaled towards the smallest action of the box by as much as needed; then each axis is
        clipped. Allowed actions are returned unchanged, bit for bit.
        """
        for group in self.groups:
            actions = self._shrunk(actions, group)
        inside = torch.minimum(torch.maximum(actions, self.low), self.high)
        for group in self._off_zero:
            inside = self._shrunk(inside, group)
        return inside

    def to(self, device: torch.device | str) -> ActionBox:
        """The same box on a device."""
        return ActionBox(low=self.low.to(device), high=self.high.to(device), groups=self.groups)

    def contains(self, actions: Tensor) -> Tensor:
        """Mask of the accepted actions: `... A` -> bool `...`."""
        inside = ((actions >= self.low) & (actions <= self.high)).all(dim=-1)
        for group in self.groups:
            inside = inside & (group.size(actions) <= group.limit)
        return inside

    def blocked(self, times: int) -> ActionBox:
        """The box of blocks of `times` consecutive actions: `times` A axes, with the groups repeated."""
        groups = tuple(group.moved(k * self.dim) for k in range(times) for group in self.groups)
        return ActionBox(low=self.low.repeat(times), high=self.high.repeat(times), groups=groups)

    def _shrunk(self, actions: Tensor, group: ActionGroup) -> Tensor:
        """The actions with one group within its limit: smallest + share * (action - smallest)."""
        axes = list(group.axes)
        part = actions[..., axes]
        smallest = torch.zeros_like(self.low[axes]).clamp(self.low[axes], self.high[axes])
        if group.norm == "max":
            within = part.clamp(-group.limit, group.limit)
        else:
            away = part - smallest
            # the share t in [0, 1] with |smallest + t away| = limit, slightly less, so that rounding stays inside
            limit = group.limit * (1 - 4 * torch.finfo(part.dtype).eps)
            square = away.square().sum(dim=-1, keepdim=True)
            half = (away * smallest).sum(dim=-1, keepdim=True)
            room = (limit**2 - smallest.square().sum()).clamp(min=0)
            safe = torch.where(square > 0, square, 1.0)
            root = (half.square() + safe * room).clamp(min=torch.finfo(part.dtype).tiny).sqrt()
            share = ((root - half) / safe).clamp(0, 1)
            too_large = (group.size(actions) > group.limit)[..., None]
            within = torch.where(too_large, smallest + share * away, part)
        shrunk = actions.clone()
        shrunk[..., axes] = within
        return shrunk

    def _check_groups(self) -> None:
        """Check the groups; record those that exclude the zero action, since clipping may enlarge them."""
        taken: set[int] = set()
        off_zero = []
        for group in self.groups:
            if max(group.axes) >= self.dim:
                raise ValueError(f"action group {group.name!r} names axes {list(group.axes)} of {self.dim}")
            if taken & set(group.axes):
                raise ValueError(f"axes {sorted(taken & set(group.axes))} are in two action groups")
            taken |= set(group.axes)
            least = float(group.size(self.low.new_zeros(self.dim).clamp(self.low, self.high)))
            if least > group.limit:
                raise ValueError(
                    f"action group {group.name!r} allows a size of {group.limit}, but the smallest action of the box "
                    f"has {least:.4g}: no action is left"
                )
            if least > 0:
                off_zero.append(group)
        object.__setattr__(self, "_off_zero", tuple(off_zero))


def shifted(
    plans: Annotated[Tensor, "... H A"], steps: int, *, tail: Annotated[Tensor, "... H A"] | None = None
) -> Tensor:
    """Plans shifted by `steps` executed steps: the remaining actions, then a tail.

    Args:
        plans: `... H A`.
        steps: Number of executed actions, >= 0.
        tail: Actions to append, `... H A` (such as zeros); None repeats the last action.

    Raises:
        ValueError: If `steps` is negative.
    """
    if steps < 0:
        raise ValueError(f"need steps >= 0, got {steps}")
    rest = plans[..., -1:, :].expand_as(plans) if tail is None else tail
    horizon = plans.shape[-2]
    return torch.cat([plans, rest], dim=-2)[..., min(steps, horizon) :, :][..., :horizon, :]


def to_blocks(actions: Annotated[Tensor, "... H A"], times: int) -> Tensor:
    """Group every `times` consecutive actions into one: `... H A` -> `... H/times times*A`.

    Raises:
        ValueError: If H is not a multiple of `times`.
    """
    *outer, horizon, dim = actions.shape
    if times < 1 or horizon % times:
        raise ValueError(f"{horizon} actions cannot be grouped into blocks of {times}")
    return actions.reshape(*outer, horizon // times, times * dim)


def from_blocks(blocks: Annotated[Tensor, "... H A"], times: int) -> Tensor:
    """Split blocks of `times` actions into single actions: `... H times*A` -> `... H*times A`.

    Raises:
        ValueError: If the width is not a multiple of `times`.
    """
    *outer, horizon, width = blocks.shape
    if times < 1 or width % times:
        raise ValueError(f"blocks of {width} numbers cannot hold {times} actions each")
    return blocks.reshape(*outer, horizon * times, width // times)
