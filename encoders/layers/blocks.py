"""Transformer blocks (plain, rotary and conditioned), feed-forward parts and projection heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.attention import Attention
from jepa_mpc.encoders.layers.drops import DropPath, Drops
from jepa_mpc.encoders.layers.positions import Angles, rotate

ModulationInit = Callable[[nn.Linear, Generator | None], None]
Attend = Callable[[Attention, Tensor], Tensor]


class FeedForward(nn.Module):
    """Two linear maps with an exact GELU between them.

    Args:
        width: Width of the tokens.
        hidden: Width between the two maps.
        norm: Applied to the tokens first; by default none.
        dropout: Dropout rate after each map in training.
    """

    def __init__(self, width: int, *, hidden: int, norm: nn.Module | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = norm or nn.Identity()
        self.up = nn.Linear(width, hidden)
        self.activation = nn.GELU()
        self.down = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token of `(..., width)`."""
        hidden = self.dropout(self.activation(self.up(self.norm(x))))
        return self.dropout(self.down(hidden))


class TransformerBlock(nn.Module):
    """Pre-norm attention and feed-forward with residuals.

        x = x + attention(norm(x));   x = x + feed_forward(norm(x))

    Args:
        width: Width of the tokens.
        heads: Number of attention heads.
        hidden: Width inside the feed-forward part.
        eps: Constant of the layer norms.
        qkv_bias: Whether the joint projection has a bias.
        drops: Dropout settings; by default none.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        hidden: int,
        eps: float = 1e-6,
        qkv_bias: bool = True,
        drops: Drops | None = None,
    ) -> None:
        super().__init__()
        drops = drops or Drops()
        self.norm_attention = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(width, heads=heads, qkv_bias=qkv_bias, dropout=drops.attention)
        self.norm_mlp = nn.LayerNorm(width, eps=eps)
        self.mlp = FeedForward(width, hidden=hidden, dropout=drops.features)
        self.drop, self.path = nn.Dropout(drops.features), DropPath(drops.path)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Transform tokens `(G, L, width)`; `mask` (L, L) is True where attention is allowed."""
        x = x + self.path(self.drop(self.attention(self.norm_attention(x), mask)))
        return x + self.path(self.mlp(self.norm_mlp(x)))


class RotaryBlock(TransformerBlock):
    """A pre-norm block with rotary positions on queries and keys: the block of the whole V-JEPA 2 family.

    `forward` is `finish(x, *project(x, angles))`; a cache calls the two itself and inserts cached keys and values.
    Parameters have the names of `TransformerBlock`.

    Reference: Assran et al. 2025, arXiv:2506.09985, section 2.1.
    """

    def forward(self, x: Tensor, angles: Angles | None, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Transform tokens.

        Args:
            x: `(B, L, width)`.
            angles: From `AxialRotary.table`, for all samples `(L, head_dim)` or each `(B, L, head_dim)`; None applies
                no rotation, for tokens with additive positional embeddings.
            mask: `(L, L)` or any shape that broadcasts to `(B, heads, L, L)`, True where attention is allowed.
        """
        return self.finish(x, *self.project(x, angles), mask)

    def project(self, x: Tensor, angles: Angles | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys (both rotated) and values of tokens `(B, L, width)`, each `(B, heads, L, head_dim)`."""
        query, key, value = self.attention.project(self.norm_attention(x))
        if angles is None:
            return query, key, value
        return rotate(query, angles), rotate(key, angles), value

    def finish(self, x: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from the tokens `x` `(B, L, width)` to all given keys and values, then feed forward."""
        x = x + self.path(self.drop(self.attention.mix(query, key, value, mask)))
        return x + self.path(self.mlp(self.norm_mlp(x)))


@dataclass(frozen=True, kw_only=True)
class ZeroModulation:
    """Initialise a conditioned block as the identity: shift, scale and gate are all zero."""

    def __call__(self, layer: nn.Linear, generator: Generator | None) -> None:
        """Initialise the modulation layer."""
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


@dataclass(frozen=True, kw_only=True)
class GatedModulation:
    """Initialise a conditioned block with half-open gates, so that all its weights learn from the first step.

    Args:
        gate: Initial value of both gates.
        std: Standard deviation of the initial modulation weights, so that the condition has an effect at once.
    """

    gate: float = 0.5
    std: float = 0.02

    def __call__(self, layer: nn.Linear, generator: Generator | None) -> None:
        """Initialise the modulation layer."""
        nn.init.normal_(layer.weight, std=self.std, generator=generator)
        nn.init.zeros_(layer.bias)
        with torch.no_grad():
            bias = layer.bias.view(6, -1)
            bias[2] = self.gate
            bias[5] = self.gate


class AdaLNBlock(nn.Module):
    """A Transformer block whose norms are shifted, scaled and gated by a condition (adaptive layer norm).

        x = x + g1 * attention((1 + c1) * LN(x) + s1);   x = x + g2 * mlp((1 + c2) * LN(x) + s2)
        (s1, c1, g1, s2, c2, g2) = Linear(SiLU(condition))

    Args:
        width: Width of tokens and condition.
        attention: The attention part.
        mlp: The feed-forward part.
        modulation_init: Initialises the linear map above.

    Reference: Peebles and Xie 2023, arXiv:2212.09748, section 3.2.
    """

    def __init__(
        self, width: int, *, attention: Attention, mlp: nn.Module, modulation_init: ModulationInit | None = None
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = attention
        self.mlp = mlp
        self.to_modulation = nn.Linear(width, 6 * width)
        self.modulation_init = modulation_init or ZeroModulation()
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Initialise the weights with a special rule."""
        self.modulation_init(self.to_modulation, generator)

    def modulation(self, condition: Tensor) -> Tensor:
        """The six concatenated modulations: condition `(..., width)` in, `(..., 6 width)` out."""
        return self.to_modulation(nn.functional.silu(condition))

    def forward(self, x: Tensor, modulation: Tensor, attend: Attend) -> Tensor:
        """Transform the tokens of several frames.

        Args:
            x: Tokens `(G, T, N, width)`.
            modulation: `(G, T, 6 width)`, one for all tokens of a frame.
            attend: Runs the attention part on `(G, T, N, width)`; may return the last frames only.

        Returns:
            The frames returned by `attend`, transformed.
        """
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = modulation.unsqueeze(-2).chunk(6, dim=-1)
        mixed = attend(self.attention, torch.addcmul(shift, self.norm(x), 1 + scale))
        kept = mixed.shape[1]
        x = torch.addcmul(x[:, -kept:], gate[:, -kept:], mixed)
        inner = torch.addcmul(shift_mlp[:, -kept:], self.norm(x), 1 + scale_mlp[:, -kept:])
        return torch.addcmul(x, gate_mlp[:, -kept:], self.mlp(inner))


class ProjectionHead(nn.Module):
    """A linear map, a norm over the rows of the batch, GELU, and a second linear map; all leading axes are rows.

    Args:
        width: Width of the input.
        hidden: Width between the two maps.
        output: Width of the output.
        norm: Builds the norm from its width.
    """

    def __init__(
        self, width: int, *, hidden: int, output: int, norm: Callable[[int], nn.Module] = nn.BatchNorm1d
    ) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.norm = norm(hidden)
        self.activation = nn.GELU()
        self.down = nn.Linear(hidden, output)
        self.width = output

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(..., width)` row by row; batch statistics run over all rows."""
        rows = self.activation(self.norm(self.up(x.flatten(0, -2))))
        return self.down(rows).unflatten(0, x.shape[:-1])
