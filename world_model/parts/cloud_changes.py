"""Augmentations of point clouds `B G 3`: subsampling, scaling, mirroring and rotation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator

from jepa_mpc.encoders.layers.clouds import Clouds, picked

Change = Callable[[Clouds, Generator], Clouds]
UP = {"x": 0, "y": 1, "z": 2}


class CloudChanges:
    """Applies changes in sequence.

    Args:
        changes: Each maps clouds `B G 3` to clouds.
    """

    def __init__(self, changes: Sequence[Change]) -> None:
        self.changes = tuple(changes)

    def __call__(self, clouds: Clouds, generator: Generator) -> Clouds:
        """Clouds in and out."""
        for change in self.changes:
            clouds = change(clouds, generator)
        return clouds


class Subsample:
    """Draws a random subset of the points of each cloud, in random order; sampling then starts at a random point.

    Args:
        count: Number of points; None keeps all.

    Raises:
        ValueError: If it is not positive.
    """

    def __init__(self, count: int | None = None) -> None:
        if count is not None and count < 1:
            raise ValueError(f"need at least one point of each cloud, got {count}")
        self.count = count

    def __call__(self, clouds: Clouds, generator: Generator) -> Clouds:
        """Clouds of `count` points, or fewer if there are fewer."""
        order = torch.rand(clouds.shape[:2], generator=generator, device=generator.device).argsort(dim=1)
        return picked(clouds, order[:, : self.count].to(clouds.device))


class Scale:
    """Scales each cloud along each axis by a random factor, and mirrors random axes.

    Args:
        low: Smallest factor.
        high: Largest factor.
        mirror: Axes that are mirrored in half of the clouds.

    Raises:
        ValueError: If the factors are not positive and ascending, or an axis is unknown.

    Reference: the training of Point-JEPA, Saito et al. 2024, arXiv:2404.16432.
    """

    def __init__(self, *, low: float = 0.8, high: float = 1.2, mirror: Sequence[str] = ("x", "z")) -> None:
        if not 0 < low <= high or not set(mirror) <= set(UP):
            raise ValueError(f"need 0 < low <= high and axes of x, y, z, got {low}, {high} and {tuple(mirror)}")
        self.low, self.high, self.mirror = low, high, tuple(mirror)

    def __call__(self, clouds: Clouds, generator: Generator) -> Clouds:
        """Clouds in and out."""
        drawn = torch.rand(2, len(clouds), 1, 3, generator=generator, device=generator.device).to(clouds.device)
        sides = torch.tensor([axis in self.mirror for axis in UP], device=clouds.device)
        factor = self.low + (self.high - self.low) * drawn[0]
        return clouds * torch.where(sides & (drawn[1] < 0.5), -factor, factor)


class Turn:
    """Rotates each cloud about the vertical axis.

    Args:
        up: The vertical axis.
        largest_rad: Largest rotation in either direction.

    Raises:
        ValueError: If there is no such axis.
    """

    def __init__(self, *, up: str = "y", largest_rad: float = math.pi) -> None:
        if up not in UP:
            raise ValueError(f"up must be x, y or z, got {up!r}")
        self.up, self.largest_rad = UP[up], largest_rad

    def __call__(self, clouds: Clouds, generator: Generator) -> Clouds:
        """Clouds in and out."""
        drawn = torch.rand(len(clouds), 1, generator=generator, device=generator.device).to(clouds.device)
        angle = self.largest_rad * (2 * drawn - 1)
        first, second = ((self.up + step) % 3 for step in (1, 2))
        a, b = clouds[..., first], clouds[..., second]
        turned = {self.up: clouds[..., self.up], first: angle.cos() * a - angle.sin() * b,
                  second: angle.sin() * a + angle.cos() * b}  # fmt: skip
        return torch.stack([turned[axis] for axis in range(3)], dim=-1)


def published_changes(*, points: int | None, up: str = "y") -> CloudChanges:
    """The augmentation of the published training of Point-JEPA, before clouds are scaled to the unit sphere."""
    mirror = [axis for axis in UP if axis != up]
    return CloudChanges([Subsample(points), Scale(mirror=mirror), Turn(up=up)])
