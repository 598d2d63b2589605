"""The slot mixer: every position attends to the slots and is decoded from one mixture of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.slot_attention import LogitScale, Shares, SlotBlock
from jepa_mpc.types import State


class SlotMixer(nn.Module):
    """Reconstruct the features of every position from slots; one mixture per position keeps it cheap.

        p      = blocks(places) looking at LN(slots)
        shares = softmax over slots of (W_q LN(p)) (W_k LN(slots))^T / sqrt(D)
        out    = W relu(mlp(shares^T slots + places))

    Args:
        slot_dim: Width D of the slots.
        num_places: Number of positions L.
        output_dim: Reconstructed features per position.
        heads: Attention heads of the blocks.
        depth: Number of blocks.
        hidden: Widths of the layers before the last map.
        logit_scale: Logit scale of the blocks, see `SlotBlock`.

    Reference: Zadaianchuk et al. 2023, arXiv:2306.04829, section 3.2.
    """

    def __init__(
        self,
        slot_dim: int,
        *,
        num_places: int,
        output_dim: int,
        heads: int = 4,
        depth: int = 3,
        hidden: Sequence[int] = (1024, 1024),
        logit_scale: LogitScale = "standard",
    ) -> None:
        super().__init__()
        self.scale = slot_dim**-0.5
        self.places = nn.Parameter(torch.empty(1, num_places, slot_dim))
        self.norm_memory = nn.LayerNorm(slot_dim)
        self.blocks = nn.ModuleList(SlotBlock(slot_dim, heads=heads, logit_scale=logit_scale) for _ in range(depth))
        self.norm_query, self.norm_key = nn.LayerNorm(slot_dim), nn.LayerNorm(slot_dim)
        self.to_query = nn.Linear(slot_dim, slot_dim, bias=False)
        self.to_key = nn.Linear(slot_dim, slot_dim, bias=False)
        layers: list[nn.Module] = []
        for inner, outer in zip((slot_dim, *hidden), hidden, strict=False):
            layers += [nn.Linear(inner, outer), nn.ReLU()]
        self.render = nn.Sequential(*layers)
        self.output = nn.Linear((slot_dim, *hidden)[-1], output_dim)
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Draw the positional embeddings from a normal distribution with std 1 / sqrt(D)."""
        nn.init.normal_(self.places, std=self.scale, generator=generator)

    def forward(self, slots: State) -> tuple[Annotated[Tensor, "B L C"], Shares]:
        """Slots `(B, N, D)` to reconstructions `(B, L, output_dim)` and weights `(B, N, L)`, which sum to 1 over N."""
        places = self.places.expand(len(slots), -1, -1)
        memory = self.norm_memory(slots)
        for block in self.blocks:
            places = block(places, memory)
        query, key = self.to_query(self.norm_query(places)), self.to_key(self.norm_key(slots))
        shares = (key @ query.transpose(1, 2) * self.scale).softmax(dim=1)  # (B, N, L)
        mixed = shares.transpose(1, 2) @ slots + self.places  # (B, L, D)
        return self.output(self.render(mixed)), shares
