"""Predictors: from known tokens to masked or future ones."""

from __future__ import annotations

from typing import Annotated, Protocol

from torch import Tensor

from jepa_mpc.types import Actions, Imagined, Latents, Plans


class ProprioPart(Protocol):
    """A predictor's part for proprioception."""

    @property
    def width(self) -> int:
        """Minimum width P of the proprioception."""

    def gap(self, predicted: Tensor, true: Tensor) -> Tensor:
        """Distance of a predicted proprioception from the true one, a scalar."""


class RollingPredictor(Protocol):
    """A one-step predictor with rollouts."""

    @property
    def proprio(self) -> ProprioPart | None:
        """Its part for proprioception, or None if it uses none."""

    @property
    def window(self) -> int:
        """Number of context frames of one prediction, including the current one."""

    def __call__(
        self, latents: Latents, actions: Actions, proprio: Annotated[Tensor, "B T P"] | None = None
    ) -> Latents:
        """T latents and the T actions after them in, the T next latents out."""

    def predict(
        self, latents: Latents, actions: Actions, proprio: Annotated[Tensor, "B T P"] | None = None
    ) -> tuple[Latents, Annotated[Tensor, "B T P"] | None]:
        """The same, with the next proprioception."""

    def rollout(
        self,
        latents: Latents,
        actions: Annotated[Tensor, "B T-1 A"],
        plans: Plans,
        proprio: Annotated[Tensor, "B T P"] | None = None,
    ) -> tuple[Imagined, Annotated[Tensor, "B S H P"] | None]:
        """Latents `B S H N D` and proprioception `B S H P` of each plan."""

    def bytes_per_candidate(self, num_tokens: int, horizon: int) -> int:
        """Approximate memory in bytes of one candidate of one world."""
