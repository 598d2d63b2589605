"""Standardisation and embedding of actions in physical units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


class ActionMap(nn.Module):
    """Standardises actions per axis; the constants are stored with the weights.

        out = (action - mean) / scale

    Args:
        scale: Typical action size per axis `(A)`, in the axis's unit; positive.
        mean: Mean action `(A)`; zero by default.

    Raises:
        ValueError: If a scale is not positive and finite, or the shapes differ.
    """

    scale: Tensor
    mean: Tensor

    def __init__(self, scale: Tensor, *, mean: Tensor | None = None) -> None:
        super().__init__()
        mean = torch.zeros_like(scale) if mean is None else mean
        if scale.dim() != 1 or mean.shape != scale.shape:
            raise ValueError(
                f"scale and mean must be vectors of one length, got {tuple(scale.shape)} and {tuple(mean.shape)}"
            )
        if not bool((torch.isfinite(scale) & (scale > 0)).all()):
            raise ValueError(f"action scales must be positive and finite, got {scale.tolist()}; give fixed axes 1")
        self.register_buffer("scale", scale.detach().clone().float())
        self.register_buffer("mean", mean.detach().clone().float())

    def forward(self, actions: Tensor) -> Tensor:
        """Standardise `(..., A)`.

        Raises:
            ValueError: If the number of action axes differs.
        """
        if actions.shape[-1] != self.scale.shape[0]:
            raise ValueError(f"this model takes actions of width {self.scale.shape[0]}, got {actions.shape[-1]}")
        return (actions - self.mean) / self.scale


@dataclass(frozen=True, kw_only=True)
class ActionScale:
    """Mean and standard deviation of a training's actions per axis, as plain numbers for configurations.

    Args:
        mean: Per axis, in its unit.
        std: Per axis, in its unit; above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, part: nn.Module) -> ActionScale | None:
        """Those of an `ActionMap`; None for a part without standardisation."""
        if not isinstance(part, ActionMap):
            return None
        return cls(mean=tuple(part.mean.tolist()), std=tuple(part.scale.tolist()))

    def repeated(self, width: int) -> ActionScale:
        """The same for blocks of several actions `(width)`.

        Raises:
            ValueError: If the block width is not a multiple of the action width.
        """
        times, rest = divmod(width, len(self.std))
        if rest or not times:
            raise ValueError(f"this model takes actions of width {width}, the statistics have width {len(self.std)}")
        return ActionScale(mean=self.mean * times, std=self.std * times)

    def arguments(self) -> dict[str, Any]:
        """As arguments of a recipe."""
        return {"action_scale": list(self.std), "action_mean": list(self.mean)}


class ActionEncoder(nn.Module):
    """A linear map, then two more with a SiLU between them; applied to each action separately.

    Args:
        action_dim: Width A of an action (or block of actions).
        smoothed: Width after the first map.
        width: Width of the result.
        expansion: Width between the last two maps, as a multiple of `width`.
        action_map: Standardises the actions first; by default they are already standardised.

    Reference: Maes et al. 2026, arXiv:2603.19312.
    """

    def __init__(
        self,
        action_dim: int,
        *,
        smoothed: int = 10,
        width: int,
        expansion: int = 4,
        action_map: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.action_map = action_map or nn.Identity()
        self.smooth = nn.Linear(action_dim, smoothed)
        self.up = nn.Linear(smoothed, expansion * width)
        self.down = nn.Linear(expansion * width, width)

    def forward(self, actions: Tensor) -> Tensor:
        """Encode `(..., A)` to `(..., width)`."""
        standard = self.action_map(actions).to(self.smooth.weight.dtype)
        return self.down(nn.functional.silu(self.up(self.smooth(standard))))
