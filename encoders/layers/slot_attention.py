"""Slot attention, where slots compete for the tokens of an image; and blocks for attention between slots."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from torch import Generator, Tensor, nn
from torch.nn import functional as F

from jepa_mpc.encoders.layers.attention import Attention
from jepa_mpc.types import State

Memory = Literal["normed", "plain"]
LogitScale = Literal["standard", "inverse"]
Shares = Annotated[Tensor, "B N L"]


class SlotAttention(nn.Module):
    """Bind slots to the tokens of one image by iterations.

        shares = softmax over slots of (W_q LN(s)) (W_k LN(x))^T / sqrt(d)
        w      = (shares + eps) / sum over tokens
        s      = GRU(w W_v LN(x), s);   s = s + mlp(s) if there is one

    Args:
        input_dim: Width of the tokens.
        slot_dim: Width D of the slots.
        iterations: Number of iterations, unless a call overrides it.
        inner: Width d of queries, keys and values; by default D.
        hidden: Width inside the feed-forward part `W relu(W LN(s))`; None omits it.
        memory: State of the recurrent cell: "normed" slots (VideoSAUR) or "plain" ones (SAVi).
        eps: Added to every weight, so that no slot is without a token.

    Raises:
        ValueError: If `memory` is unknown or `iterations` is less than 1.

    Reference: Locatello et al. 2020, arXiv:2006.15055, algorithm 1.
    """

    def __init__(
        self,
        input_dim: int,
        *,
        slot_dim: int,
        iterations: int = 2,
        inner: int | None = None,
        hidden: int | None = None,
        memory: Memory = "normed",
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        if memory not in ("normed", "plain"):
            raise ValueError(f"memory must be 'normed' or 'plain', got {memory!r}")
        if iterations < 1:
            raise ValueError(f"need at least one iteration, got {iterations}")
        self.iterations, self.memory, self.eps = iterations, memory, eps
        inner = inner or slot_dim
        self.scale = inner**-0.5
        self.norm_inputs = nn.LayerNorm(input_dim)
        self.norm_slots = nn.LayerNorm(slot_dim)
        self.to_query = nn.Linear(slot_dim, inner, bias=False)
        self.to_key = nn.Linear(input_dim, inner, bias=False)
        self.to_value = nn.Linear(input_dim, inner, bias=False)
        self.cell = nn.GRUCell(inner, slot_dim)
        self.mlp = None if hidden is None else normed_mlp(slot_dim, hidden=hidden)

    def draw(self, generator: Generator | None) -> None:
        """Initialise the weights of the recurrent cell: uniform within 1 / sqrt(D)."""
        bound = 1 / math.sqrt(self.cell.hidden_size)
        for weight in self.cell.parameters():
            nn.init.uniform_(weight, -bound, bound, generator=generator)

    def forward(
        self, slots: State, tokens: Annotated[Tensor, "B L C"], iterations: int | None = None
    ) -> tuple[State, Shares]:
        """Bind slots to tokens.

        Args:
            slots: Initial slots, `(B, N, D)`.
            tokens: Tokens of the image, `(B, L, input_dim)`.
            iterations: Number of iterations of this call.

        Returns:
            The slots, and each slot's weight for every token in the last iteration (sums to 1 over the slots).

        Raises:
            ValueError: If `iterations` is less than 1.
        """
        rounds = self.iterations if iterations is None else iterations
        if rounds < 1:
            raise ValueError(f"need at least one iteration, got {rounds}")
        tokens = self.norm_inputs(tokens)
        key, value = self.to_key(tokens), self.to_value(tokens)
        for _ in range(rounds):
            normed = self.norm_slots(slots)
            shares = (self.to_query(normed) @ key.transpose(1, 2) * self.scale).softmax(dim=1)  # (B, N, L)
            weights = shares + self.eps
            found = weights / weights.sum(dim=2, keepdim=True) @ value  # (B, N, D)
            kept = normed if self.memory == "normed" else slots
            slots = self.cell(found.flatten(0, 1), kept.flatten(0, 1)).view_as(slots)
            if self.mlp is not None:
                slots = slots + self.mlp(slots)
        return slots, shares


class SlotBlock(nn.Module):
    """A pre-norm block with a ReLU between the two maps of its feed-forward part.

        x = x + attention(LN(x), memory);   x = x + W relu(W LN(x))

    Args:
        width: Width of the tokens.
        heads: Attention heads.
        hidden: Width inside the feed-forward part; by default four times the width.
        logit_scale: "standard" divides the logits by the root of a head's width; "inverse" multiplies them by it, as
            the released VideoSAUR weights need.

    Raises:
        ValueError: If `logit_scale` is unknown.
    """

    def __init__(
        self, width: int, *, heads: int, hidden: int | None = None, logit_scale: LogitScale = "standard"
    ) -> None:
        super().__init__()
        if logit_scale not in ("standard", "inverse"):
            raise ValueError(f"logit_scale must be 'standard' or 'inverse', got {logit_scale!r}")
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads=heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = _mlp(width, hidden=hidden or 4 * width)
        self.factor = float(self.attention.head_dim) if logit_scale == "inverse" else 1.0

    def forward(self, x: State, memory: State | None = None) -> State:
        """Transform tokens `(B, L, D)`, which attend to each other or, if given, to the memory `(B, L', D)`."""
        normed = self.norm_attention(x)
        query, key, value = self._project(normed, normed if memory is None else memory)
        x = x + self.attention.mix(self.factor * query, key, value)
        return x + self.mlp(self.norm_mlp(x))

    def _project(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if memory is x:
            return self.attention.project(x)
        inner, weight, bias = self.attention.inner, self.attention.to_qkv.weight, self.attention.to_qkv.bias
        query = F.linear(x, weight[:inner], bias[:inner])
        pair = F.linear(memory, weight[inner:], bias[inner:]).chunk(2, dim=-1)
        heads = (self.attention.heads, self.attention.head_dim)
        query, key, value = (part.unflatten(-1, heads).transpose(1, 2) for part in (query, *pair))
        return query, key, value


class NormedStep(nn.Module):
    """The transition of slots between images in SAVi: `y = LN(x);  out = y + W relu(W y)`.

    Args:
        width: Width D of the slots.
        hidden: Width inside; by default twice the width.
    """

    def __init__(self, width: int, *, hidden: int | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = _mlp(width, hidden=hidden or 2 * width)

    def forward(self, x: State) -> State:
        """Slots `(B, N, D)` in and out, each separately."""
        normed = self.norm(x)
        return normed + self.mlp(normed)


def normed_mlp(width: int, *, hidden: int, output: int | None = None) -> nn.Sequential:
    """A layer norm and two linear maps with a ReLU between them."""
    return nn.Sequential(nn.LayerNorm(width), *_mlp(width, hidden=hidden, output=output))


def _mlp(width: int, *, hidden: int, output: int | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, output or width))
