"""Multi-head attention with one joint projection, split into steps for key-value caching."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

LONG = 1024
"""Tokens from which the CPU kernel is faster with keys and values in a row, by 10 to 30 %, than the copy costs."""


class Attention(nn.Module):
    """Softmax attention between sets of tokens.

        out = W_o softmax(Q K^T / sqrt(d)) V

    Args:
        width: Width of the tokens.
        heads: Number of heads.
        head_dim: Width d of one head; by default width / heads.
        qkv_bias: Whether the joint projection has a bias.
        norm: Applied to the tokens first (such as a second norm); by default none.
        output: Applied to the joined heads; by default a linear map back to `width`.
        dropout: Dropout rate of the attention weights in training.

    Raises:
        ValueError: If no head width is given and `heads` does not divide `width`.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        norm: nn.Module | None = None,
        output: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if head_dim is None and width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}; pass head_dim")
        self.heads = heads
        self.head_dim = head_dim or width // heads
        self.inner = heads * self.head_dim
        self.norm = norm or nn.Identity()
        self.to_qkv = nn.Linear(width, 3 * self.inner, bias=qkv_bias)
        self.output = output or nn.Linear(self.inner, width)
        self.dropout = dropout

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Self-attention of tokens `(G, L, width)`; `mask` (L, L) is True where attention is allowed."""
        query, key, value = self.project(x)
        return self.mix(query, key, value, mask)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens `(G, L, width)`, each `(G, heads, L, head_dim)`."""
        query, key, value = self.to_qkv(self.norm(x)).chunk(3, dim=-1)
        return self._split(query), self._split(key), self._split(value)

    def project_last(self, x: Tensor, num_last: int) -> tuple[Tensor, Tensor, Tensor]:
        """As `project`, with queries only for the last `num_last` tokens."""
        x = self.norm(x)
        weight, bias = self.to_qkv.weight, self.to_qkv.bias
        bias_q, bias_kv = (None, None) if bias is None else (bias[: self.inner], bias[self.inner :])
        last = x[:, -num_last:].contiguous()  # one product over all rows, not one per row of the batch
        query = F.linear(last, weight[: self.inner], bias_q)
        key, value = F.linear(x, weight[self.inner :], bias_kv).chunk(2, dim=-1)
        return self._split(query), self._split(key), self._split(value)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend and join the heads: `(G, heads, L, head_dim)` three times in, `(G, L, width)` out."""
        dropped = self.dropout if self.training else 0.0
        if key.shape[-2] >= LONG:
            key, value = key.contiguous(), value.contiguous()
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropped)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)  # (G, heads, L, head_dim)
