"""Post-norm Transformer blocks, with and without cross-attention.

    x = norm(x + attention(x));   x = norm(x + attention(x, memory));   x = norm(x + mlp(x))

Feed-forward parts have no biases and use ReLU. Reference: Vaswani et al. 2017, arXiv:1706.03762, section 3.1.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from jepa_mpc.encoders.layers.attention import Attention


class PlainFeedForward(nn.Module):
    """Two linear maps without biases and a ReLU between them.

    Args:
        width: Width of the tokens.
        hidden: Width between the two maps.
        dropout: Dropout rate between the maps in training.
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
        """Attend from tokens `(B, L, width)` to the memory `(B, K, width)`, where it is `visible` (B, K)."""
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
        dropout: Dropout rate of each branch in training.
    """

    def __init__(self, width: int, *, heads: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = Attention(width, heads=heads)
        self.norm_attention = nn.LayerNorm(width)
        self.mlp = PlainFeedForward(width, hidden=hidden, dropout=dropout)
        self.norm_mlp = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """Transform tokens `(B, L, width)`; only `visible` (B, L) tokens are attended to."""
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
        """Transform tokens `(B, L, width)`, which attend to `visible` (B, L) ones and to all of the memory."""
        x = self.norm_attention(x + self.dropout(self.attention(x, for_all(visible))))
        x = self.norm_cross(x + self.dropout(self.cross(x, memory)))
        return self.norm_mlp(x + self.dropout(self.mlp(x)))


def for_all(visible: Tensor | None) -> Tensor | None:
    """Mask of the visible tokens `(B, L)`, broadcast to all heads and queries."""
    return None if visible is None else visible[:, None, None, :]
