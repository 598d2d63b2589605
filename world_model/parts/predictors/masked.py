"""Masked prediction: from visible tokens and the positions of masked ones to these tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.blocks import RotaryBlock
from jepa_mpc.encoders.layers.positions import Angles, AxialRotary, Pairing
from jepa_mpc.encoders.video import BRANCH_ENDS
from jepa_mpc.shapes import check_shape

Places = Annotated[Tensor, "B L"]
"""Indices of tokens in a grid; for tokens in space, their coordinates `B L 3`."""


@dataclass(frozen=True, kw_only=True)
class MaskedSizes:
    """Sizes of a masked predictor.

    Args:
        inputs: Width of the input tokens (all levels of the encoder concatenated).
        outputs: Width of the output tokens.
        width: Width of the predictor itself.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_dim: Width inside the feed-forward parts.
        mask_tokens: Number of learned mask tokens; a hint at the call selects one.
        hidden: Width of a second layer before the predictor, or None for a single linear map.
        eps: Constant of the layer norms.
    """

    inputs: int
    outputs: int
    width: int = 384
    depth: int = 12
    heads: int = 12
    mlp_dim: int = 1536
    mask_tokens: int = 10
    hidden: int | None = None
    eps: float = 1e-6


class GridPlaces(nn.Module):
    """Rotation angles of tokens given by their index in a grid (time, row, column).

    Args:
        grid: Rows and columns of one time step.
        head_dim: Width of one attention head.
        pairing: Assignment of frequencies to the channels of a pair.
        span: Stretch rows and columns to run from 0 to span - 1; None uses integer indices.

    Raises:
        ValueError: If the grid is empty.
    """

    def __init__(self, grid: Sequence[int], *, head_dim: int, pairing: Pairing, span: int | None = None) -> None:
        super().__init__()
        if len(grid) != 2 or min(grid) < 1:
            raise ValueError(f"the grid must be (rows, columns), both positive, got {tuple(grid)}")
        self.rows, self.columns = int(grid[0]), int(grid[1])
        self.span = span
        self.rotary = AxialRotary(head_dim, pairing=pairing)

    def forward(self, x: Tensor, at: Places) -> tuple[Tensor, Angles | None]:
        """Tokens `(B, L, width)` unchanged, and cosines and sines `(B, L, head_dim)` for their indices `(B, L)`."""
        in_frame = at % (self.rows * self.columns)
        row, column = in_frame // self.columns, in_frame % self.columns
        rows = (row * self._stretch(self.rows), column * self._stretch(self.columns))
        places = torch.stack([(at // (self.rows * self.columns)).float(), *rows], dim=-1)
        return x, self.rotary.table(places)

    def _stretch(self, size: int) -> float:
        return 1.0 if self.span is None or size == 1 else (self.span - 1) / (size - 1)


class TablePlaces(nn.Module):
    """A fixed vector for each position, added to the tokens there.

    Args:
        table: `(N, width)`, by the index of the token.
    """

    table: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, x: Tensor, at: Places) -> tuple[Tensor, Angles | None]:
        """Tokens `(B, L, width)` with the vectors of their positions `(B, L)` added; no rotation."""
        return x + self.table[at], None


class MaskedPredictor(nn.Module):
    """A narrow Transformer over visible tokens and mask tokens, each with its position.

        out = W_out norm(blocks([W_in seen, mask, ..., mask]))        read at the masked positions

    Positions are encoded only in this way, so the order of the tokens does not matter.

    Args:
        sizes: All sizes.
        places: Maps tokens `(B, L, width)` and their indices `(B, L)` to the tokens that enter the first block, and the
            rotation angles of the blocks, or None.

    Reference: Assran et al. 2023, arXiv:2301.08243, section 3.
    """

    def __init__(self, sizes: MaskedSizes, places: nn.Module) -> None:
        super().__init__()
        self.sizes = sizes
        self.places = places
        self.embed = _embedding(sizes)
        self.mask_tokens = nn.Parameter(torch.empty(sizes.mask_tokens, sizes.width))
        self.blocks = nn.ModuleList(
            RotaryBlock(sizes.width, heads=sizes.heads, hidden=sizes.mlp_dim, eps=sizes.eps) for _ in range(sizes.depth)
        )
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.to_wanted = nn.Linear(sizes.width, sizes.outputs)
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Initialise the weights with a special rule: std 0.02, smaller for the residual outputs of deeper blocks."""
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02, generator=generator)
                nn.init.zeros_(part.bias)
        with torch.no_grad():
            self.mask_tokens.zero_()
            for index, block in enumerate(self.blocks):
                for name in BRANCH_ENDS:
                    block.get_parameter(name).div_(math.sqrt(2 * (index + 1)))

    def forward(self, seen: Tensor, seen_at: Places, wanted_at: Places, *, mask_token: int = 0) -> Tensor:
        """Predict tokens `(B, L, outputs)`, in the order of `wanted_at`.

        Args:
            seen: Encoded tokens `(B, K, inputs)`.
            seen_at: Their indices in the grid `(B, K)`.
            wanted_at: Indices of the masked tokens `(B, L)`.
            mask_token: Index of the mask token, modulo their number.

        Raises:
            ValueError: If the shapes do not fit each other.
        """
        return self.to_wanted(self.look(seen, seen_at, wanted_at, mask_token=mask_token)[:, seen.shape[1] :])

    def look(
        self, seen: Tensor, seen_at: Places, wanted_at: Places, *, mask_token: int = 0, tag: Tensor | None = None
    ) -> Tensor:
        """All tokens after the last norm `(B, K + L, width)`: the visible ones, then the masked ones.

        Args:
            seen: `(B, K, inputs)`.
            seen_at: `(B, K)`.
            wanted_at: `(B, L)`.
            mask_token: As in `forward`.
            tag: A vector `(width)` added to every token, or None.

        Raises:
            ValueError: If the shapes do not fit each other.
        """
        x, angles = self.enter(seen, seen_at, wanted_at, mask_token=mask_token)
        x = x if tag is None else x + tag
        for block in self.blocks:
            x = block(x, angles)
        return self.norm(x)

    def enter(
        self, seen: Tensor, seen_at: Places, wanted_at: Places, *, mask_token: int = 0
    ) -> tuple[Tensor, Angles | None]:
        """Input of the first block: all tokens `(B, K + L, width)`, and their rotation angles, if any.

        Raises:
            ValueError: If the shapes do not fit each other.
        """
        size = check_shape(seen, "B K D", D=self.sizes.inputs)
        if seen_at.shape[:2] != seen.shape[:2] or wanted_at.shape[:1] != seen.shape[:1] or wanted_at.dim() < 2:
            raise ValueError(
                f"expected places (B={size['B']}, K={size['K']}) and (B={size['B']}, L) for tokens "
                f"{tuple(seen.shape)}, got {tuple(seen_at.shape)} and {tuple(wanted_at.shape)}"
            )
        known = self.embed(seen)
        mask = self.mask_tokens[mask_token % self.sizes.mask_tokens].to(known.dtype)
        x = torch.cat([known, mask.expand(*wanted_at.shape[:2], -1)], dim=1)  # (B, K + L, width)
        return self.places(x, torch.cat([seen_at, wanted_at], dim=1))


class RotaryMaskedPredictor(MaskedPredictor):
    """The predictor of V-JEPA 2, with rotary positions.

    Args:
        sizes: All sizes.
        grid: Rows and columns of the token grid of one time step.
        pairing: Pairing of the rotary positions: "tiled" for V-JEPA 2, "interleaved" for V-JEPA 2.1.
        span: See `GridPlaces`.

    Reference: Assran et al. 2025, arXiv:2506.09985, section 2.1.
    """

    def __init__(
        self, sizes: MaskedSizes, *, grid: Sequence[int], pairing: Pairing = "tiled", span: int | None = None
    ) -> None:
        super().__init__(sizes, GridPlaces(grid, head_dim=sizes.width // sizes.heads, pairing=pairing, span=span))


class DenseMaskedPredictor(RotaryMaskedPredictor):
    """The predictor of V-JEPA 2.1: also predicts the visible tokens, and distinguishes images from video.

    Args:
        sizes: All sizes; `inputs` and `outputs` include every level.
        grid: Rows and columns of the token grid of one time step.
        modalities: Names of the kinds of input, each with a learned vector; none for a predictor without them.
        pairing: Pairing of the rotary positions.
        span: See `GridPlaces`; the released trainings stretch to 16.

    Reference: V-JEPA 2.1, arXiv:2603.14482.
    """

    def __init__(
        self,
        sizes: MaskedSizes,
        *,
        grid: Sequence[int],
        modalities: Sequence[str] = ("video", "image"),
        pairing: Pairing = "interleaved",
        span: int | None = 16,
    ) -> None:
        super().__init__(sizes, grid=grid, pairing=pairing, span=span)
        self.modalities = tuple(modalities)
        self.to_seen = nn.Linear(sizes.width, sizes.outputs)
        self.tags = nn.Parameter(torch.empty(len(self.modalities), sizes.width)) if self.modalities else None
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """As the parent, and small random tags."""
        super().draw(generator)
        tags = getattr(self, "tags", None)  # the parent initialises before they exist
        if tags is not None:
            nn.init.normal_(tags, std=1e-6, generator=generator)

    def forward(
        self, seen: Tensor, seen_at: Places, wanted_at: Places, *, mask_token: int = 0, modality: str = "video"
    ) -> Tensor:
        """Predict only the masked tokens, `(B, L, outputs)`."""
        return self.both(seen, seen_at, wanted_at, mask_token=mask_token, modality=modality)[0]

    def both(
        self, seen: Tensor, seen_at: Places, wanted_at: Places, *, mask_token: int = 0, modality: str = "video"
    ) -> tuple[Tensor, Tensor]:
        """Predictions of the masked tokens `(B, L, outputs)` and of the visible ones `(B, K, outputs)`.

        Raises:
            ValueError: If the shapes do not fit each other or the modality is unknown.
        """
        x = self.look(seen, seen_at, wanted_at, mask_token=mask_token, tag=self._tag(modality))
        count = seen.shape[1]
        return self.to_wanted(x[:, count:]), self.to_seen(x[:, :count])

    def _tag(self, modality: str) -> Tensor | None:
        if self.tags is None:
            return None
        if modality not in self.modalities:
            raise ValueError(f"unknown modality {modality!r}; known: {', '.join(self.modalities)}")
        return self.tags[self.modalities.index(modality)]


def _embedding(sizes: MaskedSizes) -> nn.Module:
    if sizes.hidden is None:
        return nn.Linear(sizes.inputs, sizes.width)
    return nn.Sequential(nn.Linear(sizes.inputs, sizes.hidden), nn.GELU(), nn.Linear(sizes.hidden, sizes.width))
