"""The causal predictor: from states and actions so far to the next state."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Actions, Imagined, Latents, Plans
from jepa_mpc.world_model.parts.predictors.frame_positions import FramePositions
from jepa_mpc.world_model.parts.predictors.trunk import (
    Attend,
    ConcatenatedTransformer,
    ConditionedTransformer,
    frame_causal_mask,
)
from jepa_mpc.world_model.parts.predictors.unrolling import CachedUnrolling, WindowedUnrolling


class DirectOutput(nn.Module):
    """The next state is the output of a head on the trunk.

    Args:
        head: Row-wise part; by default the identity.
    """

    def __init__(self, head: nn.Module | None = None) -> None:
        super().__init__()
        self.head = head or nn.Identity()

    def forward(self, raw: Tensor, states: Tensor) -> Tensor:
        """Raw output `(..., N, D')` and the input states; the next states `(..., N, D)` out."""
        return self.head(raw)


class ResidualOutput(nn.Module):
    """The next state is the current one plus a change.

        z' = z + W raw           with W initialised `scale` times smaller than usual: no motion at first

    Args:
        width: Width of the trunk's output.
        state_dim: Width D of the states.
        scale: Factor on the initial weights.
    """

    def __init__(self, width: int, *, state_dim: int, scale: float = 0.1) -> None:
        super().__init__()
        self.change = nn.Linear(width, state_dim)
        self.scale = scale
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Draw the small initial weights."""
        bound = self.scale / self.change.in_features**0.5
        nn.init.uniform_(self.change.weight, -bound, bound, generator=generator)
        nn.init.zeros_(self.change.bias)

    def forward(self, raw: Tensor, states: Tensor) -> Tensor:
        """Raw output `(..., N, width)` and the input states; the next states `(..., N, D)` out."""
        return states + self.change(raw)


class ProprioStream(nn.Module):
    """Proprioception as part of the condition, with a predicted change.

        condition += W (p / scale);      p' = p + scale * V mean_N(raw)

    Args:
        scale: Spread of each entry `(P)`, in its unit; stored with the weights.
        cond_dim: Width of the condition.
        raw_dim: Width of the trunk's output.
    """

    scale: Tensor

    def __init__(self, scale: Tensor, *, cond_dim: int, raw_dim: int) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().clone().float())
        self.to_condition = nn.Linear(len(scale), cond_dim)
        self.change = nn.Linear(raw_dim, len(scale))

    @property
    def width(self) -> int:
        """Width P of the proprioception."""
        return len(self.scale)

    def embed(self, proprio: Tensor) -> Tensor:
        """Embedding of proprioception `(..., P)`, added to the condition `(..., W)`."""
        return self.to_condition((proprio / self.scale).to(self.to_condition.weight.dtype))

    def advance(self, proprio: Tensor, raw: Tensor) -> Tensor:
        """The next proprioception `(..., P)` from the current one and the trunk's output `(..., N, raw_dim)`."""
        return proprio + self.scale * self.change(raw.mean(dim=-2))

    def gap(self, predicted: Tensor, true: Tensor) -> Tensor:
        """Mean squared difference of two `(..., P)`, each entry in units of its spread."""
        return ((predicted - true) / self.scale).square().mean()


class CausalPredictor(nn.Module):
    """Predicts each next state from the states and actions before it, with causal attention over frames.

    Args:
        trunk: The Transformer: conditioned by adaptive norms, or by channels of its tokens.
        action_encoder: Maps actions `(..., A)` to conditions `(..., W)`.
        positions: Positional embedding of the frames.
        output: Maps the trunk's output and the current states to the next states; by default the output itself.
        proprio: Handles proprioception, or None if there is none.

    Reference: Maes et al. 2026, arXiv:2603.19312, for the published form; our own form (rotary positions by the
    absolute frame index, residual output, half-open gates) allows key-value caching.
    """

    def __init__(
        self,
        *,
        trunk: ConditionedTransformer | ConcatenatedTransformer,
        action_encoder: nn.Module,
        positions: FramePositions,
        output: nn.Module | None = None,
        proprio: ProprioStream | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.action_encoder = action_encoder
        self.positions = positions
        self.output = output or DirectOutput()
        self.proprio = proprio

    @property
    def window(self) -> int:
        """Number of context frames of one prediction, including the current one."""
        return self.positions.window

    def forward(self, latents: Latents, actions: Actions, proprio: Annotated[Tensor, "B T P"] | None = None) -> Latents:
        """T latents and the T actions after them in, the T next latents out."""
        return self.predict(latents, actions, proprio)[0]

    def predict(
        self, latents: Latents, actions: Actions, proprio: Annotated[Tensor, "B T P"] | None = None
    ) -> tuple[Latents, Annotated[Tensor, "B T P"] | None]:
        """As `forward`, with the next proprioception, too.

        Raises:
            ValueError: If the shapes do not fit each other, or proprioception is missing or unexpected.
        """
        sizes = check_shape(latents, "B T N D")
        check_shape(actions, "B T A", B=sizes["B"], T=sizes["T"])
        raw = self.look(latents, self.condition(actions, proprio))
        after = None if self.proprio is None or proprio is None else self.proprio.advance(proprio, raw)
        return self.output(raw, latents), after

    def condition(self, actions: Annotated[Tensor, "... A"], proprio: Tensor | None = None) -> Tensor:
        """The condition of the blocks: actions `(..., A)` and proprioception `(..., P)` in, `(..., W)` out.

        Raises:
            ValueError: If proprioception is missing or unexpected.
        """
        if (proprio is None) != (self.proprio is None):
            raise ValueError(
                "this predictor was built with proprioception, and none came"
                if proprio is None
                else "this predictor was built without proprioception, and some came"
            )
        embedded = self.action_encoder(actions)
        return embedded if self.proprio is None or proprio is None else embedded + self.proprio.embed(proprio)

    def look(self, latents: Latents, condition: Annotated[Tensor, "B T W"]) -> Tensor:
        """The trunk's output `(B, T, N, D')`, before the output part."""
        num_frames, num_tokens = latents.shape[1:3]
        mask = frame_causal_mask(num_frames, num_tokens, window=self.positions.window, device=latents.device)
        turn = self.positions.turner(0, num_frames, num_tokens)
        ways = [Attend(turn=turn, mask=mask) for _ in self.trunk.blocks]
        return self.trunk(self.positions.embed(latents), self.trunk.modulations(condition), ways)

    def bytes_per_candidate(self, num_tokens: int, horizon: int) -> int:
        """Approximate memory in bytes of a rollout for one candidate of one world, without gradients."""
        sizes, frames = self.trunk.sizes, self.positions.window
        inner = sizes.heads * sizes.head_dim
        looked_back_on = frames if self.positions.restarts else min(2 * frames, frames + horizon)
        per_token = 4 * inner + 2 * sizes.mlp_dim + 6 * sizes.width
        per_step = 6 * sizes.width * sizes.depth
        numbers = frames * per_token + 2 * sizes.depth * looked_back_on * inner
        return self.trunk.dtype.itemsize * (numbers * num_tokens + horizon * per_step)

    def start(
        self,
        latents: Latents,
        actions: Annotated[Tensor, "B T-1 A"],
        *,
        candidates: int,
        proprio: Annotated[Tensor, "B T P"] | None = None,
        horizon: int | None = None,
    ) -> CachedUnrolling | WindowedUnrolling:
        """Prepare `candidates` futures of a context: call `step(action)` on the result (`horizon` times)."""
        unrolling = WindowedUnrolling if self.positions.restarts else CachedUnrolling
        return unrolling(self, latents, actions, candidates=candidates, proprio=proprio, horizon=horizon)

    def rollout(
        self,
        latents: Latents,
        actions: Annotated[Tensor, "B T-1 A"],
        plans: Plans,
        proprio: Annotated[Tensor, "B T P"] | None = None,
    ) -> tuple[Imagined, Annotated[Tensor, "B S H P"] | None]:
        """Roll out plans by feeding predictions back.

        Args:
            latents: Context `(B, T, N, D)`, T >= 1.
            actions: The T - 1 actions between its frames.
            plans: `(B, S, H, A)`, in the predictor's units.
            proprio: `(B, T, P)`, or None.

        Returns:
            Latents `(B, S, H, N, D)`, and proprioception `(B, S, H, P)` or None.

        Raises:
            ValueError: If the shapes do not fit each other.
        """
        sizes = check_shape(latents, "B T N D")
        plan_sizes = check_shape(plans, "B S H A", B=sizes["B"])
        check_shape(actions, "B T A", B=sizes["B"], T=sizes["T"] - 1, A=plan_sizes["A"])
        unrolling = self.start(latents, actions, candidates=plan_sizes["S"], proprio=proprio, horizon=plan_sizes["H"])
        if proprio is not None:
            steps = [(unrolling.step(plans[:, :, h]), unrolling.proprio) for h in range(plan_sizes["H"])]
            after = torch.stack([joints for _, joints in steps if joints is not None], dim=1)
            imagined = torch.stack([state for state, _ in steps], dim=2)
            return imagined.to(latents.dtype), after.to(proprio.dtype).unflatten(0, plans.shape[:2])
        known = self.trunk.modulations(self.condition(plans.flatten(0, 1)))  # per block (B S, H, 6 W)
        per_step = [[modulation[:, h : h + 1] for modulation in known] for h in range(plan_sizes["H"])]
        imagined = torch.stack([unrolling.advance(modulations) for modulations in per_step], dim=2)
        return imagined.to(latents.dtype), None
