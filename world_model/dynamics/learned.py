"""Learned dynamics: plans in, predicted futures out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Context, Plans, Rollout
from jepa_mpc.world_model.parts.predictors import RollingPredictor


class LearnedDynamics:
    """Rolls out a predictor; candidates share the context, and memory is bounded.

    Differentiable in the plans. Runs the predictor in evaluation mode, on the device of its input and in the dtype of
    its weights (`predictors.precision.lowered` reduces it); never synchronises with the device. On GPUs, wrap it in
    `CapturedDynamics` to remove launch overhead.

    Args:
        predictor: The trained predictor.
        action_map: Maps actions in physical units to those of the predictor, if the predictor does not do that itself.
        max_context: Maximum number of context frames.
        max_bytes: Approximate memory limit of one chunk of candidates, excluding the returned futures.

    Raises:
        ValueError: If a number is not positive.
    """

    def __init__(
        self,
        predictor: RollingPredictor,
        *,
        action_map: nn.Module | None = None,
        max_context: int = 1,
        max_bytes: int = 512 * 2**20,
    ) -> None:
        if max_context < 1 or max_bytes < 1:
            raise ValueError(f"need max_context >= 1 and max_bytes >= 1, got {max_context} and {max_bytes}")
        self.predictor = predictor
        self.action_map = action_map or nn.Identity()
        self.max_context = max_context
        self.max_bytes = max_bytes

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """Roll out each candidate plan.

        Args:
            context: Latents `(B, T, N, D)`, actions `(B, T-1, A)` in physical units, optional proprioception.
            plans: `(B, S, H, A)` in physical units.

        Returns:
            Latents `(B, S, H, N, D)`, and proprioception if the predictor carries it.

        Raises:
            ValueError: If context and plans do not fit each other, or one candidate exceeds `max_bytes`.
        """
        context = self._recent(context)
        sizes = check_shape(plans, "B S H A")
        latent_sizes = check_shape(context.latents, "B T N D", B=sizes["B"])
        check_shape(context.actions, "B T A", B=sizes["B"], T=latent_sizes["T"] - 1, A=sizes["A"])
        worlds, candidates = self._chunk(sizes["B"], latent_sizes["N"], sizes["H"])
        with evaluating(self.predictor):
            rows = [
                _join([self._imagine(context, block, first) for block in row.split(candidates, dim=1)], dim=1)
                for first, row in zip(range(0, sizes["B"], worlds), plans.split(worlds, dim=0), strict=True)
            ]
        latents, proprio = _join(rows, dim=0)
        assert latents is not None
        return Rollout(latents=latents, proprio=proprio)

    def at_once(self, context: Context, horizon: int) -> int:
        """Candidates per world whose futures of `horizon` steps fit in `max_bytes`; at least one."""
        worlds, _, num_tokens, _ = context.latents.shape
        return self._chunk(worlds, num_tokens, horizon)[1]

    def _imagine(self, context: Context, plans: Plans, first: int) -> tuple[Tensor | None, Tensor | None]:
        here = slice(first, first + plans.shape[0])
        proprio = context.proprio if self.predictor.proprio is not None else None
        return self.predictor.rollout(
            context.latents[here],
            self.action_map(context.actions[here]),
            self.action_map(plans),
            None if proprio is None else proprio[here],
        )

    def _recent(self, context: Context) -> Context:
        drop = max(0, context.latents.shape[1] - self.max_context)
        proprio = None if context.proprio is None else context.proprio[:, drop:]
        return Context(latents=context.latents[:, drop:], actions=context.actions[:, drop:], proprio=proprio)

    def _chunk(self, worlds: int, num_tokens: int, horizon: int) -> tuple[int, int]:
        each = self.predictor.bytes_per_candidate(num_tokens, horizon)
        fits = self.max_bytes // each
        if fits < 1:
            raise ValueError(
                f"one candidate of {horizon} steps needs about {each} bytes, max_bytes is {self.max_bytes}: "
                "increase it, or reduce the horizon"
            )
        return min(worlds, fits), max(1, fits // worlds)


@contextmanager
def evaluating(module: object) -> Iterator[None]:
    """Temporarily put a module into evaluation mode (batch norms, dropout)."""
    if not isinstance(module, nn.Module) or not module.training:
        yield
        return
    module.eval()
    try:
        yield
    finally:
        module.train()


def _join(parts: list[tuple[Tensor | None, Tensor | None]], *, dim: int) -> tuple[Tensor | None, Tensor | None]:
    latents = [part for part, _ in parts if part is not None]
    proprio = [part for _, part in parts if part is not None]
    return torch.cat(latents, dim=dim), torch.cat(proprio, dim=dim) if proprio else None
