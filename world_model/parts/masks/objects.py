"""Which slots a predictor has to infer: whole objects over time, seen at their first moment alone.

Tokens are numbered time-major, `time * objects + object`. The first frame is always seen: it says who is who. A sampler
names the seen tokens and one block of hidden ones; the frames are those of the history.
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
    """Hides objects at every moment but the first.

    Args:
        frames: Frames of the history.
        objects: Slots of a frame.
        hidden: Objects that are hidden.
        each: Whether a draw counts for the whole "batch" (as published) or one "sample".

    Raises:
        ValueError: If nothing would be left to hide, or to see.

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
                f"cannot hide {self.hidden} of {self.objects} objects in {self.frames} frames: need 0 to all of them, "
                "and two frames or more, since the first one stays"
            )

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """Masks for `batch` windows."""
        rows = 1 if self.each == "batch" else batch
        hidden = self.draw(rows, generator).expand(batch, -1, -1)
        return _masks(hidden)

    def draw(self, rows: int, generator: Generator) -> Annotated[Tensor, "B T N"]:
        """What is hidden, True there; as many tokens in each row."""
        chosen = _choose(rows, self.objects, self.hidden, generator)
        return chosen[:, None, :] & _later(self.frames, chosen.device)


@dataclass(frozen=True, kw_only=True)
class LegacyObjectMask(ObjectMask):
    """The mask of the released training: its stream begins anew at every batch, so it always hides the same slots.

    Args:
        seed: Of that stream.
    """

    seed: int = 42

    def draw(self, rows: int, generator: Generator) -> Annotated[Tensor, "B T N"]:
        """What is hidden; the generator is not used."""
        again = Generator().manual_seed(self.seed)
        chosen = torch.zeros(rows, self.objects, dtype=torch.bool)
        chosen[:, torch.randperm(self.objects, generator=again)[: self.hidden]] = True
        return chosen[:, None, :] & _later(self.frames, chosen.device)


@dataclass(frozen=True, kw_only=True)
class TubeMask(ObjectMask):
    """Hides objects for a stretch of moments, which begins anywhere after the first one.

    Args:
        length: Moments of the stretch; by default half of those that may be hidden, at least one.
    """

    length: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length is not None and not 1 <= self.length < self.frames:
            raise ValueError(f"a stretch of {self.length} moments does not fit after the first of {self.frames}")

    def draw(self, rows: int, generator: Generator) -> Annotated[Tensor, "B T N"]:
        """What is hidden."""
        length = self.length or max(1, (self.frames - 1) // 2)
        shape, device = (rows, 1, 1), generator.device
        begin = torch.randint(1, max(2, self.frames - length + 1), shape, generator=generator, device=device)
        time = torch.arange(self.frames, device=device)[None, :, None]
        chosen = _choose(rows, self.objects, self.hidden, generator)
        return chosen[:, None, :] & (time >= begin) & (time < begin + length)


@dataclass(frozen=True, kw_only=True)
class TokenMask(ObjectMask):
    """Hides as many tokens as `ObjectMask` would, wherever they are after the first moment."""

    def draw(self, rows: int, generator: Generator) -> Annotated[Tensor, "B T N"]:
        """What is hidden."""
        later = self.frames - 1
        chosen = _choose(rows, later * self.objects, later * self.hidden, generator).view(rows, later, self.objects)
        first = torch.zeros(rows, 1, self.objects, dtype=torch.bool, device=chosen.device)
        return torch.cat([first, chosen], dim=1)


def hidden_grid(masks: Masks, *, frames: int, objects: int) -> Annotated[Tensor, "B T N"]:
    """True where a token is hidden.

    Raises:
        ValueError: If the masks are made for another number of tokens.
    """
    tokens = masks.targets.flatten(1)
    if masks.context.shape[1] + tokens.shape[1] != frames * objects:
        raise ValueError(
            f"these masks are for {masks.context.shape[1] + tokens.shape[1]} tokens, and {frames} frames of {objects} "
            f"objects are {frames * objects}: make the sampler with frames={frames}, objects={objects}"
        )
    flat = torch.zeros(len(tokens), frames * objects, dtype=torch.bool, device=tokens.device)
    return flat.scatter(1, tokens, True).view(-1, frames, objects)


def given(hidden: Annotated[Tensor, "M"], *, batch: int, frames: int, objects: int) -> Masks:
    """Masks that hide the objects of these numbers in every window."""
    chosen = torch.zeros(batch, objects, dtype=torch.bool, device=hidden.device)
    chosen[:, hidden] = True
    return _masks(chosen[:, None, :] & _later(frames, hidden.device))


def _choose(rows: int, count: int, number: int, generator: Generator) -> Annotated[Tensor, "B N"]:
    """`number` of `count`, drawn for each row; True for the chosen."""
    order = torch.rand(rows, count, generator=generator, device=generator.device).argsort(dim=1)
    return order.argsort(dim=1) < number


def _later(frames: int, device: torch.device) -> Annotated[Tensor, "1 T 1"]:
    return torch.arange(frames, device=device)[None, :, None] > 0


def _masks(hidden: Annotated[Tensor, "B T N"]) -> Masks:
    """Seen and hidden tokens by number; every row hides as many."""
    flat = hidden.flatten(1)
    number = int(flat[0].sum()) if len(flat) else 0
    order = (~flat).to(torch.uint8).argsort(dim=1, stable=True)  # the hidden ones first, numbers rising
    return Masks(context=order[:, number:], targets=order[:, None, :number])
