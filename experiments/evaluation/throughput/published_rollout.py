"""The published rollout in a direct implementation: each window anew, for each candidate, without a cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from jepa_mpc.encoders.layers.attention import Attention
from jepa_mpc.world_model.parts.predictors.causal import CausalPredictor
from jepa_mpc.world_model.parts.predictors.frame_positions import WindowPositions

Rollout = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(predictor: CausalPredictor) -> Rollout:
    """A rollout with the predictor's weights: every frame of a window passes every layer for every candidate.

    Args:
        predictor: In the published form, one token per state.

    Returns:
        Maps context latents `(B, T, 1, D)`, past actions `(B, T-1, A)` and plans `(B, S, H, A)` to `(B, S, H, 1, D)`.

    Raises:
        ValueError: If the predictor's positions do not restart with each window.
    """
    if not isinstance(predictor.positions, WindowPositions):
        raise ValueError("the plain rollout supports only the published form")
    table = predictor.positions.table[:, :, 0]

    @torch.no_grad()
    def rollout(latents: Tensor, actions: Tensor, plans: Tensor) -> Tensor:
        candidates, known = plans.shape[1], latents.shape[1]
        states = latents[:, :, 0].repeat_interleave(candidates, dim=0)  # (B S, T, D)
        between = torch.cat([actions.repeat_interleave(candidates, dim=0), plans.flatten(0, 1)], dim=1)
        conditions = predictor.action_encoder(between)  # once per rollout, as the published code does
        for now in range(known, known + plans.shape[2]):
            first = max(0, now - predictor.window)
            window, condition = states[:, first:now], conditions[:, first:now]
            raw = _look(predictor, window + table[:, : window.shape[1]], condition)
            states = torch.cat([states, predictor.output(raw[:, :, None], window[:, :, None])[:, -1:, 0]], dim=1)
        return states[:, known:, None].unflatten(0, plans.shape[:2])

    return rollout


def _look(predictor: CausalPredictor, x: Tensor, condition: Tensor) -> Tensor:
    """All blocks over a window: `(G, T, D)` in and out."""
    trunk = predictor.trunk
    x, condition = trunk.input_proj(x.to(trunk.dtype)), F.silu(trunk.cond_proj(condition.to(trunk.dtype)))
    for block in trunk.blocks:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = block.to_modulation(condition).chunk(6, dim=-1)
        x = x + gate * _attend(block.attention, block.norm(x) * (1 + scale) + shift)
        x = x + gate_mlp * block.mlp(block.norm(x) * (1 + scale_mlp) + shift_mlp)
    return trunk.output_proj(trunk.norm(x))


def _attend(attention: Attention, x: Tensor) -> Tensor:
    query, key, value = (
        part.unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for part in attention.to_qkv(attention.norm(x)).chunk(3, dim=-1)
    )
    mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    return attention.output(mixed.transpose(1, 2).flatten(2))
