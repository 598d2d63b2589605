"""The vision Transformer: one image to patch tokens or a summary token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.blocks import TransformerBlock
from jepa_mpc.encoders.layers.positions import resize_grid
from jepa_mpc.errors import BadObservation
from jepa_mpc.types import State


@dataclass(frozen=True, kw_only=True)
class ViTSizes:
    """Sizes of a vision Transformer.

    Args:
        image: Side of the square image of the position table, in pixels.
        patch: Side of a patch, in pixels.
        width: Width of the tokens.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_dim: Width inside the feed-forward parts.
        channels: Channels of the image.
        eps: Constant of the layer norms.
    """

    image: int
    patch: int
    width: int
    depth: int
    heads: int
    mlp_dim: int
    channels: int = 3
    eps: float = 1e-6


class VisionTransformer(nn.Module):
    """Patches, learned positions, pre-norm blocks, a last layer norm.

    For images of another size, divisible into patches, the table is resized bicubically.

    Args:
        sizes: All sizes.
        pool: "cls" outputs only the summary token (N = 1), "patches" all patch tokens without having a summary token,
            "dense" all patch tokens with a summary token in the attention.

    Raises:
        ValueError: If `pool` is unknown or the image is not divisible into patches.

    Reference: Dosovitskiy et al. 2021, arXiv:2010.11929; the sizes of Maes et al. 2026, arXiv:2603.19312.
    """

    def __init__(self, sizes: ViTSizes, *, pool: Literal["cls", "patches", "dense"] = "cls") -> None:
        super().__init__()
        if pool not in ("cls", "patches", "dense"):
            raise ValueError(f"pool must be 'cls', 'patches' or 'dense', got {pool!r}")
        if sizes.image % sizes.patch:
            raise ValueError(f"an image of {sizes.image} pixels is not divisible into patches of {sizes.patch}")
        self.sizes = sizes
        self.pool = pool
        self.width = sizes.width
        self.side = sizes.image // sizes.patch
        self.num_summary = int(pool != "patches")
        self.num_tokens = 1 if pool == "cls" else self.side**2
        self.patches = nn.Conv2d(sizes.channels, sizes.width, kernel_size=sizes.patch, stride=sizes.patch)
        self.summary = nn.Parameter(torch.empty(1, self.num_summary, sizes.width), requires_grad=self.num_summary > 0)
        self.positions = nn.Parameter(torch.empty(1, self.num_summary + self.side**2, sizes.width))
        self.blocks = nn.ModuleList(
            TransformerBlock(sizes.width, heads=sizes.heads, hidden=sizes.mlp_dim, eps=sizes.eps)
            for _ in range(sizes.depth)
        )
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Initialise the weights with a special rule: normal with std 0.02, biases zero."""
        nn.init.normal_(self.summary, std=0.02, generator=generator)
        nn.init.normal_(self.positions, std=0.02, generator=generator)
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(part.weight, std=0.02, generator=generator)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def forward(self, x: Tensor, keep: Annotated[Tensor, "B K"] | None = None) -> State:
        """Encode images `(B, C, h, w)` to `(B, 1, D)` or `(B, K, D)`; `keep` selects the visible patches."""
        tokens = self.tokens(x, keep)
        return tokens[:, :1] if self.pool == "cls" else tokens[:, self.num_summary :]

    def tokens(self, x: Tensor, keep: Annotated[Tensor, "B K"] | None = None) -> State:
        """All tokens after the last norm, the summary token (if any) first.

        Raises:
            BadObservation: If the images have other channels, or are not divisible into patches.
        """
        tokens = self.embed(x)
        if keep is not None:
            tokens = tokens.gather(1, keep[:, :, None].expand(-1, -1, self.width))
        return self.through(tokens)

    def embed(self, x: Tensor) -> State:
        """Patch tokens with positional embeddings `(B, N, D)`, before the first block.

        Raises:
            BadObservation: If the images have other channels, or are not divisible into patches.
        """
        patch, channels = self.sizes.patch, self.sizes.channels
        if x.dim() != 4 or x.shape[1] != channels or x.shape[2] % patch or x.shape[3] % patch:
            raise BadObservation(
                f"expected images (B, {channels}, h, w) with sides divisible by {patch}, got {tuple(x.shape)}"
            )
        grid = self.patches(x)
        table = resize_grid(self.positions[:, self.num_summary :], (self.side, self.side), tuple(grid.shape[2:]))
        return grid.flatten(2).transpose(1, 2) + table

    def through(self, tokens: State) -> State:
        """Embedded patch tokens `(B, K, D)` through blocks and last norm, the summary token (if any) first."""
        summary = (self.summary + self.positions[:, : self.num_summary]).expand(len(tokens), -1, -1)
        tokens = torch.cat([summary, tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)
