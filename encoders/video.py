"""The video Transformer of the V-JEPA 2 family: clips or images to tokens, with rotary positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint

from jepa_mpc.encoders.layers.blocks import RotaryBlock
from jepa_mpc.encoders.layers.positions import Angles, AxialRotary, Pairing, grid_places
from jepa_mpc.encoders.patches import TubeletPatches
from jepa_mpc.errors import BadObservation
from jepa_mpc.types import State

BRANCH_ENDS = ("attention.output.weight", "mlp.down.weight")
"""Weights of a block that write to the residual stream."""


@dataclass(frozen=True, kw_only=True)
class VideoSizes:
    """Sizes of a video Transformer.

    Args:
        width: Width D of the tokens.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_dim: Width inside the feed-forward parts.
        patch: Height of a patch in pixels.
        tubelet: Frames per token.
        channels: Channels of a frame.
        eps: Constant of the layer norms.
        qkv_bias: Whether queries, keys and values have a bias.
        patch_width: Width of a patch, if it is not square.
    """

    width: int
    depth: int
    heads: int
    mlp_dim: int
    patch: int = 16
    tubelet: int = 2
    channels: int = 3
    eps: float = 1e-6
    qkv_bias: bool = True
    patch_width: int | None = None

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        return self.patch, self.patch_width or self.patch


class PicturePath(nn.Module):
    """Image input beside clips: patches of a single frame, and a learned vector added to every token.

    Args:
        sizes: Sizes of the Transformer.

    Reference: V-JEPA 2.1, arXiv:2603.14482.
    """

    def __init__(self, sizes: VideoSizes) -> None:
        super().__init__()
        self.patches = TubeletPatches(sizes.channels, sizes.width, patch=sizes.sides, tubelet=1)
        self.clip_mark = nn.Parameter(torch.empty(1, 1, sizes.width))
        self.picture_mark = nn.Parameter(torch.empty(1, 1, sizes.width))
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Draw these vectors from a normal distribution with std 0.02."""
        for mark in (self.clip_mark, self.picture_mark):
            nn.init.trunc_normal_(mark, std=0.02, generator=generator)


class VideoTransformer(nn.Module):
    """Tubelet patches, pre-norm blocks with rotary positions in time, row and column, layer norms at chosen depths.

    Positions follow the input's own grid, so resolutions, aspect ratios and lengths may differ from training if they
    are divisible into patches and tubelets. There is no summary token and no position table.

    V-JEPA 2 is `pairing="tiled"` with the other options off: one norm at the end serves any depth. V-JEPA 2.1 is
    "interleaved" with `span=16`, `levels` at four depths with a norm each, and `pictures=True`.

    Args:
        sizes: All sizes.
        pairing: Pairing of the rotated channels, see `AxialRotary`; None applies no rotation, for other positional
            embeddings.
        span: Side of the grid to which rows and columns are stretched, or None for integer indices.
        levels: Blocks (from 0, ascending, including the last) with a separate output norm, or None.
        pictures: Whether single images have a separate input path.
        recompute: Activation checkpointing: keep only the input of each block for the backward pass, at about a third
            more time for a fraction of the memory.

    Raises:
        ValueError: If the sizes are inconsistent or `levels` do not end at the last block.

    Reference: Assran et al. 2025, arXiv:2506.09985; V-JEPA 2.1, arXiv:2603.14482.
    """

    def __init__(
        self,
        sizes: VideoSizes,
        *,
        pairing: Pairing | None = "interleaved",
        span: int | None = None,
        levels: Sequence[int] | None = None,
        pictures: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        _check_levels(levels, sizes.depth)
        self.sizes, self.width, self.recompute = sizes, sizes.width, recompute
        self.levels = None if levels is None else tuple(levels)
        self.rotary = None if pairing is None else AxialRotary(sizes.width // sizes.heads, pairing=pairing)
        self.span = span
        self.patches = TubeletPatches(sizes.channels, sizes.width, patch=sizes.sides, tubelet=sizes.tubelet)
        self.pictures = PicturePath(sizes) if pictures else None
        self.blocks = nn.ModuleList(
            RotaryBlock(sizes.width, heads=sizes.heads, hidden=sizes.mlp_dim, eps=sizes.eps, qkv_bias=sizes.qkv_bias)
            for _ in range(sizes.depth)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(sizes.width, eps=sizes.eps) for _ in self.levels or (0,))
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Initialise the blocks: std 0.02, biases zero, the two outputs of block i divided by sqrt(2 (i + 1))."""
        for index, block in enumerate(self.blocks):
            for name, weight in block.named_parameters():
                if name.endswith("bias"):
                    nn.init.zeros_(weight)
                elif weight.dim() == 2:
                    std = 0.02 / math.sqrt(2 * (index + 1)) if name in BRANCH_ENDS else 0.02
                    nn.init.trunc_normal_(weight, std=std, generator=generator)

    def forward(self, x: Tensor, keep: Annotated[Tensor, "B K"] | None = None) -> State:
        """Encode clips or images.

        Args:
            x: Normalised clips `(B, T, C, h, w)`. An image `(B, C, h, w)` is one time step: it takes the image path if
                there is one, otherwise it is repeated to fill one tubelet.
            keep: Indices of the visible tokens, in the order time, row, column; each keeps its position.

        Returns:
            Tokens `(B, N, D)` after the last norm, N = T / tubelet * h / patch * w / patch, or K.

        Raises:
            BadObservation: If channels, frames or pixels do not fit, or `keep` has another batch.
        """
        return self.depths(x, keep)[-1]

    def depths(
        self, x: Tensor, keep: Annotated[Tensor, "B K"] | None = None, *, at: Sequence[int] | None = None
    ) -> list[State]:
        """Normalised tokens after several blocks, as `forward` returns them after the last.

        Args:
            x: As in `forward`.
            keep: As in `forward`.
            at: Blocks, counted from 0; by default the last one. With `levels` only these have a norm.

        Raises:
            ValueError: If there is no such block or it has no norm.
        """
        wanted = (self.sizes.depth - 1,) if at is None else tuple(at)
        norms = [self._norm(index) for index in wanted]
        streams = self.streams(x, keep, at=wanted)
        return [norm(stream) for norm, stream in zip(norms, streams, strict=True)]

    def streams(self, x: Tensor, keep: Annotated[Tensor, "B K"] | None = None, *, at: Sequence[int]) -> list[State]:
        """The residual stream after the blocks `at`, without a norm."""
        tokens, angles = self.embed(x, keep)
        found: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks[: max(at) + 1]):
            if self.recompute and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, angles, use_reentrant=False)
            else:
                tokens = block(tokens, angles)
            if index in at:
                found[index] = tokens
        return [found[index] for index in at]

    def embed(self, x: Tensor, keep: Annotated[Tensor, "B K"] | None = None) -> tuple[State, Angles | None]:
        """Input of the first block: tokens `(B, N or K, D)`, and their rotation angles, if any."""
        grid, mark = self._patch(x)
        tokens = self.placed(grid)
        if mark is not None:
            tokens = tokens + mark
        if keep is not None:
            _check_keep(keep, len(tokens))
            tokens = tokens.gather(1, keep[:, :, None].expand(-1, -1, self.width))
        if self.rotary is None:
            return tokens, None
        places = grid_places(*grid.shape[1:4], device=x.device, span=self.span)
        return tokens, self.rotary.table(places if keep is None else places[keep])  # (N, 3) or (B, K, 3)

    def placed(self, grid: Tensor) -> State:
        """Tokens `(B, N, D)` of a grid `(B, times, rows, columns, D)`; a subclass may add positional embeddings."""
        return grid.flatten(1, 3)

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Times, rows and columns of tokens for a clip of this size."""
        return frames // self.sizes.tubelet, height // self.sizes.sides[0], width // self.sizes.sides[1]

    def _patch(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """A grid of tokens `(B, times, rows, columns, D)` and the vector to add."""
        is_picture = x.dim() == 4
        x = x[:, None] if is_picture else x
        patches = self.patches
        mark: Tensor | None = None
        if self.pictures is not None and x.dim() == 5 and x.shape[1] == 1:
            patches, mark = self.pictures.patches, self.pictures.picture_mark
        elif self.pictures is not None:
            mark = self.pictures.clip_mark
        elif is_picture:
            x = x.expand(-1, patches.tubelet, -1, -1, -1)
        self._check(x, patches.tubelet)
        return patches(x.to(patches.weight.dtype)), mark

    def _norm(self, index: int) -> nn.Module:
        if self.levels is None and 0 <= index < self.sizes.depth:
            return self.norms[0]
        if self.levels is not None and index in self.levels:
            return self.norms[self.levels.index(index)]
        known = f"0 to {self.sizes.depth - 1}" if self.levels is None else self.levels
        raise ValueError(f"there is no normed output after block {index}: choose among {known}")

    def _check(self, x: Tensor, tubelet: int) -> None:
        channels, sides, got = self.sizes.channels, self.sizes.sides, tuple(x.shape)
        if x.dim() != 5 or x.shape[2] != channels or not x.is_floating_point():
            hint = " (channels before frames? transpose(1, 2))" if x.dim() == 5 and x.shape[1] == channels else ""
            if x.dim() == 5 and channels == 3 and x.shape[2] in (6, 9, 12):
                hint = f" ({x.shape[2] // 3} cameras: this takes one, such as cameras=[left])"
            wanted = f"clips (B, T, {channels}, h, w) or images (B, {channels}, h, w)"
            raise BadObservation(f"expected normalised {wanted}, got {got} of {x.dtype}{hint}")
        if x.shape[1] % tubelet or not x.shape[1]:
            hint = f"one token spans {tubelet}: repeat or drop a frame"
            raise BadObservation(f"expected a multiple of {tubelet} frames, got {x.shape[1]} ({hint})")
        if x.shape[3] % sides[0] or x.shape[4] % sides[1]:
            side = f"{x.shape[3]} x {x.shape[4]} pixels: resize or crop them"
            wanted = str(sides[0]) if sides[0] == sides[1] else f"{sides[0]} x {sides[1]}"
            raise BadObservation(f"expected sides divisible by {wanted}, got {side}")


class AllLevels(nn.Module):
    """A video Transformer whose output concatenates all its levels: `(B, N, levels D)`, the shallowest first.

    Args:
        encoder: Has `levels`.
        last: Number of levels, counted from the deepest; by default all.

    Raises:
        ValueError: If the encoder has no levels, or fewer than `last`.
    """

    def __init__(self, encoder: VideoTransformer, *, last: int | None = None) -> None:
        super().__init__()
        known = encoder.levels or ()
        if not known or not 1 <= (last or len(known)) <= len(known):
            raise ValueError(f"cannot join the last {last or 'of the'} levels: the encoder has {len(known)}")
        self.encoder = encoder
        self.at = known[-(last or len(known)) :]
        self.width = encoder.width * len(self.at)

    def forward(self, x: Tensor, keep: Annotated[Tensor, "B K"] | None = None) -> State:
        """Encode clips or images as the encoder does."""
        return torch.cat(self.encoder.depths(x, keep, at=self.at), dim=-1)


def _check_levels(levels: Sequence[int] | None, depth: int) -> None:
    if levels is not None and (not levels or list(levels) != sorted(set(levels)) or levels[0] < 0):
        raise ValueError(f"levels must be ascending block indices, got {tuple(levels)}")
    if levels is not None and levels[-1] != depth - 1:
        raise ValueError(f"the last level must be the last block {depth - 1}, got {levels[-1]}")


def _check_keep(keep: Tensor, batch: int) -> None:
    if keep.dim() != 2 or keep.shape[0] != batch or keep.dtype != torch.int64:
        raise BadObservation(
            f"keep must hold token indices (B, K) of int64 with B = {batch}, got {tuple(keep.shape)} of {keep.dtype}"
        )
