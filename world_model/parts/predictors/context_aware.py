"""A masked predictor with cross-attention to the context in every layer, so the encoder need not encode the rest."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.blocks import TransformerBlock
from jepa_mpc.encoders.layers.postnorm import CrossAttention
from jepa_mpc.shapes import check_shape
from jepa_mpc.world_model.parts.predictors.masked import MaskedSizes, Places


class ContextBlock(TransformerBlock):
    """Masked tokens attend to each other, then to the context, then feed forward.

        x = x + attention(norm(x));   x = x + cross(norm(x), norm(context));   x = x + mlp(norm(x))

    Args:
        sizes: Width, heads, feed-forward width and constant of the norms.
    """

    def __init__(self, sizes: MaskedSizes) -> None:
        super().__init__(sizes.width, heads=sizes.heads, hidden=sizes.mlp_dim, eps=sizes.eps)
        self.norm_wanted, self.norm_context = (nn.LayerNorm(sizes.width, eps=sizes.eps) for _ in range(2))
        self.cross = CrossAttention(sizes.width, heads=sizes.heads)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:  # type: ignore[override]
        """Transform masked tokens `(B, L, width)` given the context `(B, K, width)`."""
        x = x + self.attention(self.norm_attention(x))
        x = x + self.cross(self.norm_wanted(x), self.norm_context(context))
        return x + self.mlp(self.norm_mlp(x))


class ContextAwarePredictor(nn.Module):
    """Only masked tokens pass the blocks; the context enters each of them unchanged.

        x = mask + p(wanted_at);   out = W_out norm(blocks(x, W_in seen))

    Args:
        sizes: All sizes.
        places: Adds positions `(B, L, ...)` to tokens `(B, L, width)`, as in a `MaskedPredictor`.

    Written from the description in Hu et al. 2024, arXiv:2409.15803; the sizes are ours.
    """

    def __init__(self, sizes: MaskedSizes, places: nn.Module) -> None:
        super().__init__()
        self.sizes, self.places = sizes, places
        self.embed = nn.Linear(sizes.inputs, sizes.width)
        self.mask_tokens = nn.Parameter(torch.empty(sizes.mask_tokens, sizes.width))
        self.blocks = nn.ModuleList(ContextBlock(sizes) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.to_wanted = nn.Linear(sizes.width, sizes.outputs)
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Initialise mask tokens to zero."""
        nn.init.zeros_(self.mask_tokens)

    def forward(self, seen: Tensor, seen_at: Places, wanted_at: Places, *, mask_token: int = 0) -> Tensor:
        """Predict tokens `(B, L, outputs)`, in the order of `wanted_at`.

        Args:
            seen: Encoded tokens `(B, K, inputs)`, which already contain their positions.
            seen_at: Their positions, unused.
            wanted_at: Positions of the masked tokens, as input of `places`.
            mask_token: Index of the mask token, modulo their number.

        Raises:
            ValueError: If the tokens have another width.
        """
        check_shape(seen, "B K D", D=self.sizes.inputs)
        context = self.embed(seen)
        mask = self.mask_tokens[mask_token % self.sizes.mask_tokens].to(context.dtype)
        x, _ = self.places(mask.expand(*wanted_at.shape[:2], -1), wanted_at)
        for block in self.blocks:
            x = block(x, context)
        return self.to_wanted(self.norm(x))
