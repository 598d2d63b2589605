"""Predictors: from what is known to what is not seen or not yet."""

from __future__ import annotations

from typing import Annotated, Protocol

from torch import Tensor

from jepa_mpc.types import Actions, Imagined, Latents, Plans


class ProprioPart(Protocol):
    """What a predictor does with proprioception."""

    @property
    def width(self) -> int:
        """Numbers P that it reads, at least."""

    def gap(self, predicted: Tensor, true: Tensor) -> Tensor:
        """How far a predicted proprioception is from the true one, one number."""


class RollingPredictor(Protocol):
    """A step predictor that can also feed its predictions back."""

    @property
    def proprio(self) -> ProprioPart | None:
        """Its part for proprioception, or None if it uses none."""

    @property
    def window(self) -> int:
        """Frames that one prediction looks back on, its own included."""

    def __call__(
        self, latents: Latents, actions: Actions, proprio: Annotated[Tensor, "B T P"] | None = None
    ) -> Latents:
        """T latents and the T actions that leave them in, the T latents that follow out."""

    def predict(
        self, latents: Latents, actions: Actions, proprio: Annotated[Tensor, "B T P"] | None = None
    ) -> tuple[Latents, Annotated[Tensor, "B T P"] | None]:
        """The same, with the proprioception that follows."""

    def rollout(
        self,
        latents: Latents,
        actions: Annotated[Tensor, "B T-1 A"],
        plans: Plans,
        proprio: Annotated[Tensor, "B T P"] | None = None,
    ) -> tuple[Imagined, Annotated[Tensor, "B S H P"] | None]:
        """Latents `B S H N D` and proprioception `B S H P` of each plan."""

    def bytes_per_candidate(self, num_tokens: int, horizon: int) -> int:
        """About how many bytes one candidate of one world needs."""
