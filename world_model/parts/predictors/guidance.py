"""Guidance of a predictor by a thinker: hidden states of another network, and three ways to inject them.

    o = masked mean of W_old old[l];   n = masked mean of W_new new[l];   u = [o, n, |o - n|, o n]
    (scale, shift) = MLP_l(u);   g_l = tanh(gate_l), zero at first
    film       h <- h (1 + g scale) + g shift
    adaln      h <- LN(h) (1 + g scale) + g shift
    crossattn  h <- h + g attention(LN(h), [W_old old[l], W_new new[l]])

Reference: Zhang et al. 2026, ThinkJEPA, arXiv:2603.22281.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.postnorm import CrossAttention
from jepa_mpc.shapes import check_shape

Visible = Annotated[Tensor, "B S"]


@dataclass(frozen=True, kw_only=True)
class ThinkerFeatures:
    """Hidden states of a thinker for some observed frames, one set per world.

    Args:
        old: States of its input `B L S D`, from L of its layers.
        old_mask: `B S`, True for tokens, False for padding.
        new: States of its output `B L S' D`; S' may be 0.
        new_mask: `B S'`.
        frames: Indices `B K` of its input frames, in the predicted window.

    Raises:
        ValueError: If the shapes do not fit each other or a mask is not bool.
    """

    old: Annotated[Tensor, "B L S D"]
    old_mask: Visible
    new: Annotated[Tensor, "B L S D"]
    new_mask: Visible
    frames: Annotated[Tensor, "B K"]

    def __post_init__(self) -> None:
        size = check_shape(self.old, "B L S D")
        batch, layers, width = size["B"], size["L"], size["D"]
        said = check_shape(self.new, "B L S D", B=batch, L=layers, D=width)
        check_shape(self.old_mask, "B S", B=batch, S=size["S"])
        check_shape(self.new_mask, "B S", B=batch, S=said["S"])
        check_shape(self.frames, "B K", B=batch)
        for name in ("old_mask", "new_mask"):
            if getattr(self, name).dtype != torch.bool:
                raise ValueError(f"{name} must be bool (True: a token), got {getattr(self, name).dtype}")

    @property
    def layers(self) -> int:
        """Number of stored layers L."""
        return self.old.shape[1]

    def check_observed(self, last: int) -> None:
        """Refuse features from the future.

        Args:
            last: Index of the last observed frame.

        Raises:
            ValueError: If the thinker saw a later frame, or the frames are unknown.
        """
        if not self.frames.numel():
            raise ValueError(
                "these thinker features do not say which frames were seen: extract them with frame numbers"
            )
        latest = int(self.frames.max())
        if latest > last:
            raise ValueError(
                f"these thinker features come from frame {latest}, and only frames up to {last} are observed: a "
                "thinker that saw the future must not guide its prediction; extract them from observed frames alone"
            )


@dataclass(frozen=True, kw_only=True)
class Thought:
    """The guidance input of one predictor layer, in the predictor's width; padding is zero.

    Args:
        old: `B S d`.
        old_mask: `B S`.
        new: `B S' d`.
        new_mask: `B S'`.
    """

    old: Annotated[Tensor, "B S d"]
    old_mask: Visible
    new: Annotated[Tensor, "B S d"]
    new_mask: Visible

    def summary(self) -> Annotated[Tensor, "B 4d"]:
        """[o, n, |o - n|, o n] of the means o and n; a mean over no token is zero."""
        old, new = _mean(self.old, self.old_mask), _mean(self.new, self.new_mask)
        return torch.cat([old, new, (old - new).abs(), old * new], dim=-1)

    def memory(self) -> tuple[Annotated[Tensor, "B S d"], Visible]:
        """All tokens `B S + S' + 1 d` and their mask; a zero token replaces missing ones."""
        present = torch.cat([self.old_mask, self.new_mask], dim=1)
        alone = ~present.any(dim=1, keepdim=True)
        tokens = torch.cat([self.old, self.new, self.old.new_zeros(len(self.old), 1, self.old.shape[2])], dim=1)
        return tokens, torch.cat([present, alone], dim=1)


class ThoughtPyramid(nn.Module):
    """Layer l of the thinker guides layer l of the predictor; further predictor layers get zeros.

    Args:
        inputs: Width of the thinker's states.
        width: Width of the predictor.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.old = nn.Linear(inputs, width, bias=False)
        self.new = nn.Linear(inputs, width, bias=False)
        self.inputs = inputs

    def forward(self, features: ThinkerFeatures, depth: int) -> list[Thought]:
        """A guidance input for each of `depth` layers; further thinker layers are unused.

        Raises:
            ValueError: If the width of the states differs from the pyramid's.
        """
        check_shape(features.old, "B L S D", D=self.inputs)
        used = min(depth, features.layers)
        old = self.old(_kept(features.old[:, :used], features.old_mask[:, None]))  # (B, used, S, d)
        new = self.new(_kept(features.new[:, :used], features.new_mask[:, None]))
        masks = {"old_mask": features.old_mask, "new_mask": features.new_mask}
        silence = Thought(
            old=torch.zeros_like(old[:, 0]), new=torch.zeros_like(new[:, 0]),
            **{name: torch.zeros_like(mask) for name, mask in masks.items()},
        )  # fmt: skip
        spoken = [Thought(old=old[:, layer], new=new[:, layer], **masks) for layer in range(used)]
        return spoken + [silence] * (depth - used)


@dataclass(frozen=True, kw_only=True)
class GuidanceSizes:
    """Sizes of a guidance.

    Args:
        inputs: Width of the thinker's states.
        hidden: Width inside the map from a summary to scale and shift.
        heads: Attention heads of `AttentionGuidance`.
    """

    inputs: int
    hidden: int = 512
    heads: int = 6


class Guidance(nn.Module, ABC):
    """Guidance of one layer, with a gate that starts closed: g = tanh(gate)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()))

    def draw(self, generator: Generator | None) -> None:
        """Close the gate."""
        nn.init.zeros_(self.gate)

    @abstractmethod
    def forward(self, x: Annotated[Tensor, "B L d"], thought: Thought) -> Annotated[Tensor, "B L d"]:
        """Modify the input tokens of a block by the guidance input."""


class FilmGuidance(Guidance):
    """h <- h (1 + g scale) + g shift.

    Args:
        width: Width d of the tokens.
        sizes: All other sizes.
    """

    def __init__(self, width: int, *, sizes: GuidanceSizes) -> None:
        super().__init__()
        self.to_modulation = nn.Sequential(
            nn.LayerNorm(4 * width), nn.Linear(4 * width, sizes.hidden), nn.GELU(), nn.Linear(sizes.hidden, 2 * width)
        )

    def modulation(self, thought: Thought) -> tuple[Annotated[Tensor, "B d"], Annotated[Tensor, "B d"]]:
        """Scale and shift, both times g."""
        scale, shift = (self.gate.tanh() * self.to_modulation(thought.summary())).chunk(2, dim=-1)
        return scale, shift

    def forward(self, x: Annotated[Tensor, "B L d"], thought: Thought) -> Annotated[Tensor, "B L d"]:
        """Scale and shift all tokens of a world equally."""
        scale, shift = self.modulation(thought)
        return x * (1 + scale[:, None]) + shift[:, None]


class AdaNormGuidance(FilmGuidance):
    """h <- LN(h) (1 + g scale) + g shift; with gate 0 the norm remains, unlike in the unguided predictor.

    Args:
        width: Width d of the tokens.
        sizes: All other sizes.
    """

    def __init__(self, width: int, *, sizes: GuidanceSizes) -> None:
        super().__init__(width, sizes=sizes)
        self.prenorm = nn.LayerNorm(width)

    def forward(self, x: Annotated[Tensor, "B L d"], thought: Thought) -> Annotated[Tensor, "B L d"]:
        """Normalise, then scale and shift all tokens of a world equally."""
        return super().forward(self.prenorm(x), thought)


class AttentionGuidance(Guidance):
    """h <- h + g attention(LN(h), memory): each token attends to the thinker's tokens.

    Args:
        width: Width d of the tokens.
        sizes: All other sizes.
    """

    def __init__(self, width: int, *, sizes: GuidanceSizes) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width)
        self.reader = CrossAttention(width, heads=sizes.heads)

    def forward(self, x: Annotated[Tensor, "B L d"], thought: Thought) -> Annotated[Tensor, "B L d"]:
        """Add the attention output to each token."""
        return x + self.gate.tanh() * self.reader(self.query_norm(x), *thought.memory())


GUIDANCE: dict[str, type[FilmGuidance] | type[AdaNormGuidance] | type[AttentionGuidance]] = {
    "film": FilmGuidance,
    "adaln": AdaNormGuidance,
    "crossattn": AttentionGuidance,
}
"""Name -> kind of guidance."""


def _kept(states: Tensor, mask: Tensor) -> Tensor:
    """States `(..., S, D)` with padding set to zero."""
    return torch.where(mask[..., None], states, states.new_zeros(()))


def _mean(tokens: Annotated[Tensor, "B S d"], mask: Visible) -> Annotated[Tensor, "B d"]:
    count = mask.sum(dim=1, keepdim=True).clamp(min=1).to(tokens.dtype)
    return _kept(tokens, mask).sum(dim=1) / count
