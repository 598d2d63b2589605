"""The predictor of Causal-JEPA: object slots over time, partly masked after their first frame, all nodes in parallel.

    input(t, n) = x[t, n] + time[t]                          seen
                = mask + time[t] + W x[0, n]                 masked, and every node of the future
    blocks:       x = x + attention(x);   x = x + mlp(LN(x))
    prediction  = W_o LN(x)

Slot indices are not encoded: a masked node is identified only by its anchor, the node at time 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.attention import Attention
from jepa_mpc.encoders.layers.blocks import FeedForward
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Latents

Hidden = Annotated[Tensor, "B T N"]


@dataclass(frozen=True, kw_only=True)
class SlotSizes:
    """Sizes of a slot predictor.

    Args:
        width: Width D of the nodes.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_dim: Width inside the feed-forward parts.
        history: Maximum number of observed frames.
        future: Number of frames predicted at once.
        dropout: Dropout rate in training, after attention and in the feed-forward parts.

    Raises:
        ValueError: If `history` or `future` is less than 1.
    """

    width: int
    depth: int
    heads: int
    mlp_dim: int
    history: int
    future: int = 1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.history < 1 or self.future < 1:
            raise ValueError(f"need history >= 1 and future >= 1, got {self.history} and {self.future}")


class NodeBlock(nn.Module):
    """A block without a norm before its attention: `x = x + attention(x);  x = x + mlp(LN(x))`.

    Args:
        sizes: Width, heads, feed-forward width and dropout.
    """

    def __init__(self, sizes: SlotSizes) -> None:
        super().__init__()
        output = nn.Sequential(nn.Linear(sizes.width, sizes.width), nn.Dropout(sizes.dropout))
        self.attention = Attention(sizes.width, heads=sizes.heads, output=output)
        norm = nn.LayerNorm(sizes.width)
        self.mlp = FeedForward(sizes.width, hidden=sizes.mlp_dim, norm=norm, dropout=sizes.dropout)

    def forward(self, x: Annotated[Tensor, "B L D"], mask: Tensor | None = None) -> Annotated[Tensor, "B L D"]:
        """Transform tokens; `mask` broadcasts to `(B, heads, L, L)`, True where attention is allowed."""
        x = x + self.attention(x, mask)
        return x + self.mlp(x)

    def shares(self, x: Annotated[Tensor, "B L D"], mask: Tensor | None = None) -> Annotated[Tensor, "B L L"]:
        """Attention weights between tokens, mean over the heads."""
        query, key, _ = self.attention.project(x)
        scores = query @ key.transpose(-2, -1) * self.attention.head_dim**-0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(dim=-1).mean(dim=1)


class SlotPredictor(nn.Module):
    """Predicts masked nodes of the past and all nodes of the next frames.

    Works for any number of nodes, in any order. A history shorter than `sizes.history` uses the last rows of the time
    table, so that the future always has the same ones.

    Args:
        sizes: All sizes.

    Reference: Nam et al. 2026, arXiv:2602.11389, section 3.
    """

    def __init__(self, sizes: SlotSizes) -> None:
        super().__init__()
        self.sizes = sizes
        width = sizes.width
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.times = nn.Parameter(torch.empty(1, sizes.history + sizes.future, 1, width))
        self.anchor = nn.Linear(width, width)
        self.blocks = nn.ModuleList(NodeBlock(sizes) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, width)
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Initialise the weights with a special rule: times from a standard normal, the mask token with a small std."""
        nn.init.normal_(self.times, generator=generator)
        nn.init.trunc_normal_(self.mask_token, std=0.02, generator=generator)

    def forward(self, nodes: Latents, hidden: Hidden | None = None, *, gone: Hidden | None = None) -> Latents:
        """Predict every node of past and future.

        Args:
            nodes: The past, `(B, T, N, D)`, T at most `sizes.history`.
            hidden: Mask of masked nodes of the past `(B, T, N)`; the first frame's are always visible.
            gone: Mask of removed nodes of past and future `(B, T + future, N)`: no node attends to them.

        Returns:
            `(B, T + future, N, D)`.

        Raises:
            ValueError: If the shapes do not fit the sizes.
        """
        grid = self.grid(nodes, hidden)
        x, mask = grid.flatten(1, 2), _visible(gone)  # (B, T N, D), time-major
        for block in self.blocks:
            x = block(x, mask)
        return self.output(self.norm(x)).view_as(grid)

    def ahead(self, nodes: Latents) -> Latents:
        """The next frames `(B, future, N, D)` from fully visible nodes, of which the last ones are used."""
        recent = nodes[:, -self.sizes.history :]
        return self(recent)[:, recent.shape[1] :]

    def grid(self, nodes: Latents, hidden: Hidden | None = None) -> Latents:
        """Input of the blocks `(B, T + future, N, D)`: visible nodes and queries, with their times."""
        sizes = check_shape(nodes, "B T N D", D=self.sizes.width)
        past, count = sizes["T"], sizes["N"]
        if not 1 <= past <= self.sizes.history:
            raise ValueError(f"this predictor takes 1 to {self.sizes.history} frames, got {past}")
        total = past + self.sizes.future
        times = self.times[:, -total:]
        queries = self.mask_token[:, :, None] + times + self.anchor(nodes[:, :1])  # (B, T + future, N, D)
        seen = nodes + times[:, :past]
        if hidden is not None:
            check_shape(hidden, "B T N", B=sizes["B"], T=past, N=count)
            later = torch.arange(past, device=nodes.device)[None, :, None] > 0
            seen = torch.where((hidden & later)[..., None], queries[:, :past], seen)
        return torch.cat([seen, queries[:, past:]], dim=1)

    def attention_probe(
        self, nodes: Latents, hidden: Hidden | None = None, *, layer: int = -1
    ) -> Annotated[Tensor, "B T N T N"]:
        """Attention in one layer: weights of query (time, node) over key (time, node), mean over the heads.

        Raises:
            IndexError: If there is no such layer.
        """
        grid = self.grid(nodes, hidden)
        chosen = range(len(self.blocks))[layer]
        x = grid.flatten(1, 2)
        for block in list(self.blocks)[:chosen]:
            x = block(x)
        shares = self.blocks[chosen].shares(x)  # type: ignore[operator]
        return shares.unflatten(2, grid.shape[1:3]).unflatten(1, grid.shape[1:3])


def _visible(gone: Hidden | None) -> Tensor | None:
    """Mask of the tokens that may be attended to `(B, 1, 1, L)`; a removed token itself attends to the others."""
    return None if gone is None else ~gone.flatten(1)[:, None, None, :]
