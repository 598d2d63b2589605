"""The conditioned Transformer over frames, and its attention modes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jepa_mpc.encoders.layers.attention import Attention
from jepa_mpc.encoders.layers.blocks import AdaLNBlock, FeedForward, ModulationInit
from jepa_mpc.world_model.parts.predictors.frame_positions import Turn
from jepa_mpc.world_model.parts.predictors.kept import Kept, KeyValue

__all__ = [
    "Attend",
    "AttendLast",
    "ConcatenatedTransformer",
    "ConditionedTransformer",
    "KeyValue",
    "TrunkSizes",
    "frame_causal_mask",
]

FEW = 16  # number of keys up to which fused 16-bit attention on CPUs is slower than explicit products


@dataclass(frozen=True, kw_only=True)
class TrunkSizes:
    """Sizes of a conditioned Transformer.

    Args:
        width: Width of the tokens inside.
        depth: Number of blocks.
        heads: Attention heads.
        head_dim: Width of one head; heads * head_dim may differ from `width`.
        mlp_dim: Width inside the feed-forward parts.
        dropout: Dropout rate in training, after attention and in the feed-forward parts.
    """

    width: int
    depth: int
    heads: int
    head_dim: int
    mlp_dim: int
    dropout: float = 0.0


class ConditionedTransformer(nn.Module):
    """Adaptive-layer-norm blocks between optional projections, with a last layer norm.

    Projections exist only where widths differ. Attention and feed-forward parts have a second norm after the modulated
    one, and a single head as wide as the tokens has no attention output map, as published.

    Args:
        state_dim: Width of the input states.
        sizes: Sizes inside.
        cond_dim: Width of the conditions; by default `state_dim`.
        output_dim: Width of the output; by default `state_dim`.
        modulation_init: Initialises the modulations; by default zero.
        inner_norm: Builds the second norm from its width.

    Reference: Maes et al. 2026, arXiv:2603.19312, section 3.
    """

    def __init__(
        self,
        state_dim: int,
        *,
        sizes: TrunkSizes,
        cond_dim: int | None = None,
        output_dim: int | None = None,
        modulation_init: ModulationInit | None = None,
        inner_norm: Callable[[int], nn.Module] = nn.LayerNorm,
    ) -> None:
        super().__init__()
        width = sizes.width
        self.sizes = sizes
        self.input_proj = _bridge(state_dim, width)
        self.cond_proj = _bridge(cond_dim or state_dim, width)
        self.blocks: Sequence[AdaLNBlock] = nn.ModuleList(  # type: ignore[assignment]
            AdaLNBlock(
                width,
                attention=Attention(
                    width,
                    heads=sizes.heads,
                    head_dim=sizes.head_dim,
                    qkv_bias=False,
                    norm=inner_norm(width),
                    output=_attention_output(sizes),
                ),
                mlp=FeedForward(width, hidden=sizes.mlp_dim, norm=inner_norm(width), dropout=sizes.dropout),
                modulation_init=modulation_init,
            )
            for _ in range(sizes.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.output_proj = _bridge(width, output_dim or state_dim)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its weights; states and conditions are cast to it."""
        return self.norm.weight.dtype

    def modulations(self, condition: Tensor) -> list[Tensor]:
        """One modulation `(..., 6 width)` per block for conditions `(..., cond_dim)`."""
        condition = self.cond_proj(condition.to(self.dtype))
        return [block.modulation(condition) for block in self.blocks]

    def forward(self, states: Tensor, modulations: Sequence[Tensor], ways: Sequence[Attend | AttendLast]) -> Tensor:
        """Run all blocks: states `(G, T, N, D)`, a modulation and an attention mode per block.

        Returns:
            `(G, T', N, output_dim)`; the attention modes determine the T' remaining frames.
        """
        x = self.input_proj(states.to(self.dtype))
        for block, modulation, attend in zip(self.blocks, modulations, ways, strict=True):
            x = block(x, modulation, attend)
        return self.output_proj(self.norm(x))


class ConcatenatedBlock(nn.Module):
    """Pre-norm attention and feed-forward part with residuals; the caller runs the attention.

    Args:
        sizes: Sizes of the Transformer.
    """

    def __init__(self, sizes: TrunkSizes) -> None:
        super().__init__()
        width = sizes.width
        self.attention = Attention(
            width,
            heads=sizes.heads,
            head_dim=sizes.head_dim,
            qkv_bias=False,
            norm=nn.LayerNorm(width),
            output=_attention_output(sizes),
        )
        self.mlp = FeedForward(width, hidden=sizes.mlp_dim, norm=nn.LayerNorm(width), dropout=sizes.dropout)

    def forward(self, x: Tensor, attend: Attend | AttendLast) -> Tensor:
        """Transform `(G, T, N, width)`; returns the frames that `attend` returns."""
        mixed = attend(self.attention, x)
        x = x[:, x.shape[1] - mixed.shape[1] :] + mixed
        return x + self.mlp(x)


class ConcatenatedTransformer(nn.Module):
    """A Transformer with the condition in the last channels of every token, as in DINO-WM.

        x = [state | condition] + position;   out = LN(blocks(x)), the channels of the state

    Args:
        state_dim: Width of the states; the condition has the other `sizes.width - state_dim` channels.
        sizes: Sizes inside.

    Reference: Zhou et al. 2024, arXiv:2411.04983.
    """

    def __init__(self, state_dim: int, *, sizes: TrunkSizes) -> None:
        super().__init__()
        self.state_dim, self.sizes = state_dim, sizes
        self.blocks: Sequence[ConcatenatedBlock] = nn.ModuleList(  # type: ignore[assignment]
            ConcatenatedBlock(sizes) for _ in range(sizes.depth)
        )
        self.norm = nn.LayerNorm(sizes.width)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its weights; states and conditions are cast to it."""
        return self.norm.weight.dtype

    def modulations(self, condition: Tensor) -> list[Tensor]:
        """The condition `(..., width - state_dim)`, once: it enters before the first block only."""
        return [condition.to(self.dtype)]

    def forward(self, states: Tensor, modulations: Sequence[Tensor], ways: Sequence[Attend | AttendLast]) -> Tensor:
        """Run all blocks: states `(G, T, N, width)` with room for the condition, and an attention mode per block.

        Returns:
            `(G, T', N, state_dim)`; the attention modes determine the T' remaining frames.
        """
        (condition,) = modulations
        room = nn.functional.pad(condition, (self.state_dim, 0))  # (G, T, width)
        x = states.to(self.dtype) + room[:, :, None]
        for block, attend in zip(self.blocks, ways, strict=True):
            x = block(x, attend)
        return self.norm(x)[..., : self.state_dim]


@dataclass(frozen=True, kw_only=True)
class Attend:
    """Attention over the tokens of all frames, after cached keys and values.

    Args:
        turn: Encodes the frame positions in queries and keys.
        mask: `(L, L' + L)`, True where attention is allowed, or None for everywhere.
        kept: Cache of earlier keys and values, to which the new ones are appended; None caches nothing.
    """

    turn: Turn
    mask: Tensor | None = None
    kept: Kept | None = None

    def __call__(self, attention: Attention, x: Tensor) -> Tensor:
        """Attend over `(G, T, N, width)`."""
        query, key, value = attention.project(x.flatten(1, 2))
        key = self.turn(key)
        if self.kept is not None:
            key, value = self.kept.extend(key, value)
        return mix(attention, self.turn(query), key, value, mask=self.mask).view_as(x)


@dataclass(frozen=True, kw_only=True)
class AttendLast:
    """Attention of only the last frame's tokens, over all frames (no positions in queries and keys).

    Args:
        kept: As in `Attend`.
    """

    kept: Kept | None = None

    def __call__(self, attention: Attention, x: Tensor) -> Tensor:
        """Attend over `(G, T, N, width)`; returns `(G, 1, N, width)`."""
        query, key, value = attention.project_last(x.flatten(1, 2), x.shape[2])
        if self.kept is not None:
            key, value = self.kept.extend(key, value)
        return mix(attention, query, key, value).unsqueeze(1)


def mix(attention: Attention, query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Attend and join the heads, as `Attention.mix`; for few keys, CPUs compute 16-bit attention by explicit products.

    Args:
        attention: The layer.
        query: `(G, heads, L, head_dim)`.
        key: `(G, heads, L', head_dim)`, and `value` likewise.
        value: As `key`.
        mask: `(L, L')`, True where attention is allowed.
    """
    if query.device.type != "cpu" or query.dtype.itemsize >= 4 or key.shape[2] > FEW:
        return attention.mix(query, key, value, mask)
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)  # (G, heads, L, L')
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return attention.output((scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))


def frame_causal_mask(num_frames: int, num_tokens: int, *, window: int, device: torch.device) -> Tensor | None:
    """Causal mask, frame-major: tokens attend to all tokens of their own frame and of the `window` - 1 frames before.

    Returns:
        `(T N, T N)` bool, or None if nothing is masked.
    """
    if num_frames == 1:
        return None
    frame = torch.arange(num_frames, device=device).repeat_interleave(num_tokens)
    age = frame[:, None] - frame[None, :]
    return (age >= 0) & (age < window)


def _bridge(incoming: int, outgoing: int) -> nn.Module:
    return nn.Identity() if incoming == outgoing else nn.Linear(incoming, outgoing)


def _attention_output(sizes: TrunkSizes) -> nn.Module:
    if sizes.heads == 1 and sizes.head_dim == sizes.width:
        return nn.Identity()
    return nn.Sequential(nn.Linear(sizes.heads * sizes.head_dim, sizes.width), nn.Dropout(sizes.dropout))
