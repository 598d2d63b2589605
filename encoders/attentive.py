"""The attentive probe of V-JEPA: one learned query attends to all tokens; a linear map predicts the classes."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.blocks import FeedForward
from jepa_mpc.encoders.layers.postnorm import CrossAttention
from jepa_mpc.types import State


class AttentiveProbe(nn.Module):
    """Cross-attention from learned queries to the tokens, a feed-forward part, and a linear map.

        q = q + softmax(W_q q (W_k LN(x))^T / sqrt(d)) W_v LN(x);   q = q + mlp(LN(q));   out = W q

    Queries are not normalised, and the attention has no output map: the released code creates one and never uses it.

    Args:
        width: Width of the tokens.
        heads: Attention heads.
        outputs: Number of outputs.
        mlp_dim: Width inside the feed-forward part; by default four times the width.
        eps: Constant of the layer norms.

    Reference: Bardes et al. 2024, arXiv:2404.08471, section 4 and its released code.
    """

    def __init__(self, width: int, *, heads: int, outputs: int, mlp_dim: int | None = None, eps: float = 1e-5) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, 1, width))
        self.norm = nn.LayerNorm(width, eps=eps)
        self.attention = CrossAttention(width, heads=heads, output=nn.Identity())
        self.norm_mlp = nn.LayerNorm(width, eps=eps)
        self.mlp = FeedForward(width, hidden=mlp_dim or 4 * width)
        self.read = nn.Linear(width, outputs)
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Draw the query from a normal distribution with std 0.02."""
        nn.init.trunc_normal_(self.query, std=0.02, generator=generator)

    def forward(self, tokens: State) -> Tensor:
        """Tokens `(B, N, D)` to numbers `(B, outputs)`."""
        query = self.query.expand(len(tokens), -1, -1)
        query = query + self.attention(query, self.norm(tokens))
        query = query + self.mlp(self.norm_mlp(query))
        return self.read(query[:, 0])
