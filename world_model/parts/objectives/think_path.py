"""The path head: hand positions in metres, read from predicted tokens."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.postnorm import CrossAttention
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Latents

Path = Annotated[Tensor, "B H Q"]


class PathHead(nn.Module):
    """Reads a position from the tokens of each frame.

        y = MLP(LN(pool(tokens + marks)));   y = y + MLP_t(LN(y));   place = W y

    One learned query pools the tokens of a frame; each token gets a learned positional embedding, since tokens with
    rotary positions encode their position only in their content.

    Args:
        num_tokens: Tokens N of a frame.
        inputs: Width D of the tokens; `heads` divides it.
        outputs: Entries Q of a position.
        hidden: Width after the pooling.
        heads: Attention heads of the pooling.

    Reference: Zhang et al. 2026, arXiv:2603.22281 (there: 52 hand joints).
    """

    def __init__(self, num_tokens: int, inputs: int, *, outputs: int = 3, hidden: int = 1024, heads: int = 8) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, 1, inputs))
        self.marks = nn.Parameter(torch.empty(num_tokens, inputs))
        self.pool = CrossAttention(inputs, heads=heads)
        self.enter = nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, hidden), nn.GELU())
        self.over_time = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )
        self.leave = nn.Linear(hidden, outputs)
        self.outputs = outputs
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Draw query and positional embeddings from a normal distribution with std 0.02."""
        nn.init.normal_(self.query, std=0.02, generator=generator)
        nn.init.normal_(self.marks, std=0.02, generator=generator)

    def forward(self, latents: Latents) -> Path:
        """Tokens `B H N D` of H frames to positions `B H Q`.

        Raises:
            ValueError: If the number or width of the tokens differs from the head's.
        """
        size = check_shape(latents, "B H N D", N=len(self.marks), D=self.marks.shape[1])
        tokens = (latents + self.marks).flatten(0, 1)  # (B H, N, D)
        pooled = self.pool(self.query.expand(len(tokens), -1, -1), tokens)[:, 0]
        y = self.enter(pooled.unflatten(0, (size["B"], size["H"])))
        return self.leave(y + self.over_time(y))


def path_errors(predicted: Path, true: Path) -> dict[str, Tensor]:
    """Mean and final distance of two paths, in the path's unit."""
    missed = (predicted - true).detach().norm(dim=-1)  # (B, H)
    return {"ade_m": missed.mean(), "fde_m": missed[:, -1].mean()}
