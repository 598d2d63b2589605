"""Slot masks: whole objects over time, visible in the first frame only.

Tokens are indexed time-major, `time * objects + object`. The first frame is always visible, as it identifies the
objects. A sampler returns the visible tokens and one block of masked ones; the frames are those of the history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Generator, Tensor

from jepa_mpc.types import Masks

Each = Literal["batch", "sample"]


@dataclass(frozen=True, kw_only=True)
class ObjectMask:
    """Masks objects in every frame but the first.

    Args:
        frames: Frames of the history.
        objects: Slots per frame.
        hidden: Number of masked objects.
        each: Whether a draw is per "batch" (as published) or per "sample".

    Raises:
        ValueError: If nothing would be masked, or nothing visible.

    Reference: Nam et al. 2026, arXiv:2602.11389, section 3.
    """

    frames: int
    objects: int
    hidden: int
    each: Each = "batch"

    def __post_init__(self) -> None:
        if self.each not in ("batch", "sample"):
            raise ValueError(f"each must be 'batch' or 'sample', got {self.each!r}")
        if self.frames < 1 or not 0 <= self.hidden <= self.objects or (self.hidden and self.frames < 2):
            raise ValueError(
                f"cannot mask {self.hidden} of {self.objects} objects in {self.frames} frames: need 0 to all of them, "
                "and two frames or more, since the first one stays visible"
            )

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """Masks for `batch` windows."""
        rows = 1 if self.each == "batch" else batch
        hidden = self.draw(rows, generator).expand(batch, -1, -1)
        return _masks(hidden)

    def draw(self, rows: int, generator: Generator) -> Annotated[Tensor, "B T N"]:
        """Mask `B T N`, True for masked tokens; the same number in each row."""
        chosen = _choose(rows, self.objects, self.hidden, generator)
        return chosen[:, None, :] & _later(self.frames, chosen.device)


@dataclass(frozen=True, kw_only=True)
class LegacyObjectMask(ObjectMask):
    """The mask of the released training: its stream restarts with every batch, so it always masks the same slots.

    Args:
        seed: Seed of that stream.
    """

    seed: int = 42

    def draw(self, rows: int, generator: Generator) -> Annotated[Tensor, "B T N"]:
        """The mask; the generator is not used."""
        again = Generator().manual_seed(self.seed)
        chosen = torch.zeros(rows, self.objects, dtype=torch.bool)
        chosen[:, torch.randperm(self.objects, generator=again)[: self.hidden]] = True
        return chosen[:, None, :] & _later(self.frames, chosen.device)


@dataclass(frozen=True, kw_only=True)
class TubeMask(ObjectMask):
    """Masks objects for a time interval that starts anywhere after the first frame.

    Args:
        length: Length of the interval; by default half of the frames that may be masked, at least one.
    """

    length: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length is not None and not 1 <= self.length < self.frames:
            raise ValueError(f"an interval of {self.length} frames does not fit after the first of {self.frames}")

    def draw(self, rows: int, generator: Generator) -> Annotated[Tensor, "B T N"]:
        """The mask."""
        length = self.length or max(1, (self.frames - 1) // 2)
        shape, device = (rows, 1, 1), generator.device
        begin = torch.randint(1, max(2, self.frames - length + 1), shape, generator=generator, device=device)
        time = torch.arange(self.frames, device=device)[None, :, None]
        chosen = _choose(rows, self.objects, self.hidden, generator)
        return chosen[:, None, :] & (time >= begin) & (time < begin + length)


@dataclass(frozen=True, kw_only=True)
class TokenMask(ObjectMask):
    """Masks as many tokens as `ObjectMask`, anywhere after the first frame."""

    def draw(self, rows: int, generator: Generator) -> Annotated[Tensor, "B T N"]:
        """The mask."""
        later = self.frames - 1
        chosen = _choose(rows, later * self.objects, later * self.hidden, generator).view(rows, later, self.objects)
        first = torch.zeros(rows, 1, self.objects, dtype=torch.bool, device=chosen.device)
        return torch.cat([first, chosen], dim=1)


def hidden_grid(masks: Masks, *, frames: int, objects: int) -> Annotated[Tensor, "B T N"]:
    """True for masked tokens.

    Raises:
        ValueError: If the masks are for another number of tokens.
    """
    tokens = masks.targets.flatten(1)
    if masks.context.shape[1] + tokens.shape[1] != frames * objects:
        raise ValueError(
            f"these masks are for {masks.context.shape[1] + tokens.shape[1]} tokens, but {frames} frames of {objects} "
            f"objects have {frames * objects}: make the sampler with frames={frames}, objects={objects}"
        )
    flat = torch.zeros(len(tokens), frames * objects, dtype=torch.bool, device=tokens.device)
    return flat.scatter(1, tokens, True).view(-1, frames, objects)


def given(hidden: Annotated[Tensor, "M"], *, batch: int, frames: int, objects: int) -> Masks:
    """Masks of the objects with these indices in every window."""
    chosen = torch.zeros(batch, objects, dtype=torch.bool, device=hidden.device)
    chosen[:, hidden] = True
    return _masks(chosen[:, None, :] & _later(frames, hidden.device))


def _choose(rows: int, count: int, number: int, generator: Generator) -> Annotated[Tensor, "B N"]:
    """Draw `number` of `count` per row; True for the drawn ones."""
    order = torch.rand(rows, count, generator=generator, device=generator.device).argsort(dim=1)
    return order.argsort(dim=1) < number


def _later(frames: int, device: torch.device) -> Annotated[Tensor, "1 T 1"]:
    return torch.arange(frames, device=device)[None, :, None] > 0


def _masks(hidden: Annotated[Tensor, "B T N"]) -> Masks:
    """Indices of visible and masked tokens; every row masks the same number."""
    flat = hidden.flatten(1)
    number = int(flat[0].sum()) if len(flat) else 0
    order = (~flat).to(torch.uint8).argsort(dim=1, stable=True)  # masked tokens first, indices ascending
    return Masks(context=order[:, number:], targets=order[:, None, :number])
