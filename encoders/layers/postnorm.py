"""Transformer blocks that normalise after the residual, with and without cross-attention.

    x = norm(x + attention(x));   x = norm(x + attention(x, memory));   x = norm(x + mlp(x))

Feed-forward parts have no biases and a rectifier. Reference: Vaswani et al. 2017, arXiv:1706.03762, section 3.1.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from jepa_mpc.encoders.layers.attention import Attention


class PlainFeedForward(nn.Module):
    """Two linear maps without biases and a rectifier between them.

    Args:
        width: Width of the tokens.
        hidden: Width between the two maps.
        dropout: Share of entries dropped between the maps in training.
    """

    def __init__(self, width: int, *, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token of `(..., width)`."""
        return self.down(self.dropout(F.relu(self.up(x))))


class CrossAttention(Attention):
    """Attention of tokens over others; the arguments are those of `Attention`."""

    def forward(self, x: Tensor, memory: Tensor, visible: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Let the tokens `(B, L, width)` look at the memory `(B, K, width)`, where it is `visible` (B, K)."""
        weight, bias = self.to_qkv.weight, self.to_qkv.bias
        bias_q, bias_kv = (None, None) if bias is None else (bias[: self.inner], bias[self.inner :])
        query = F.linear(self.norm(x), weight[: self.inner], bias_q)
        key, value = F.linear(memory, weight[self.inner :], bias_kv).chunk(2, dim=-1)
        return self.mix(self._split(query), self._split(key), self._split(value), for_all(visible))


class PostNormBlock(nn.Module):
    """Self-attention and feed-forward.

    Args:
        width: Width of the tokens.
        heads: Attention heads.
        hidden: Width inside the feed-forward part.
        dropout: Share of entries dropped of each branch in training.
    """

    def __init__(self, width: int, *, heads: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = Attention(width, heads=heads)
        self.norm_attention = nn.LayerNorm(width)
        self.mlp = PlainFeedForward(width, hidden=hidden, dropout=dropout)
        self.norm_mlp = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """Transform tokens `(B, L, width)`; nobody looks at tokens that are not `visible` (B, L)."""
        x = self.norm_attention(x + self.dropout(self.attention(x, for_all(visible))))
        return self.norm_mlp(x + self.dropout(self.mlp(x)))


class PostNormDecoderBlock(nn.Module):
    """Self-attention, cross-attention to a memory, feed-forward; the arguments are those of `PostNormBlock`."""

    def __init__(self, width: int, *, heads: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = Attention(width, heads=heads)
        self.norm_attention = nn.LayerNorm(width)
        self.cross = CrossAttention(width, heads=heads)
        self.norm_cross = nn.LayerNorm(width)
        self.mlp = PlainFeedForward(width, hidden=hidden, dropout=dropout)
        self.norm_mlp = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, visible: Tensor | None = None) -> Tensor:
        """Transform tokens `(B, L, width)` that see each other, where `visible` (B, L), and all of the memory."""
        x = self.norm_attention(x + self.dropout(self.attention(x, for_all(visible))))
        x = self.norm_cross(x + self.dropout(self.cross(x, memory)))
        return self.norm_mlp(x + self.dropout(self.mlp(x)))


def for_all(visible: Tensor | None) -> Tensor | None:
    """Which tokens may be looked at `(B, L)`, as a mask for all heads and queries."""
    return None if visible is None else visible[:, None, None, :]
