"""Masks over neighbourhoods of a point cloud: runs along an ordering, or balls in space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor

from jepa_mpc.types import Masks

Share = tuple[float, float]
TRIES = 200


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs of consecutive tokens in the ordering of the cloud; one draw serves the whole batch.

        k = int(N r);   M runs of k tokens with independent starts, which may overlap
        context: one run of the remaining tokens, int(n r_c) of n; it may jump over a masked run

    Each cloud has its own ordering, so one draw masks a different part of each. A draw that leaves nothing visible is
    repeated.

    Args:
        num_tokens: Tokens N of a cloud.
        num_targets: Masked runs M.
        target: Smallest and largest share r of a masked run; drawn once per batch.
        context: Smallest and largest visible share r_c of the remaining tokens.

    Raises:
        ValueError: If there is no token or run, or a share is not between 0 and 1.

    Reference: Saito et al. 2024, arXiv:2404.16432, section 3.3.
    """

    num_tokens: int
    num_targets: int = 4
    target: Share = (0.15, 0.2)
    context: Share = (0.4, 0.75)

    def __post_init__(self) -> None:
        check_shares(self.num_tokens, self.num_targets, target=self.target, context=self.context)

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """Masks for `batch` clouds.

        Raises:
            ValueError: If repeated draws mask everything.
        """
        for _ in range(TRIES):
            runs = self.hidden(generator)
            left = _left(runs, self.num_tokens)
            if len(left):
                seen = self.seen(left, generator)
                return Masks(context=seen.expand(batch, -1), targets=runs.expand(batch, -1, -1))
        raise _nothing_seen(self)

    def hidden(self, generator: Generator) -> Annotated[Tensor, "M L"]:
        """The masked runs."""
        length = max(1, int(self.num_tokens * _within(self.target, generator)))
        starts = torch.randint(self.num_tokens - length + 1, (self.num_targets, 1), generator=generator,
                               device=generator.device)  # fmt: skip
        return starts + torch.arange(length, device=generator.device)

    def seen(self, left: Annotated[Tensor, "N"], generator: Generator) -> Annotated[Tensor, "K"]:
        """A run of the remaining tokens."""
        count = max(1, int(_within(self.context, generator) * len(left)))
        begin = torch.randint(len(left) - count + 1, (), generator=generator, device=generator.device)
        return left[int(begin) : int(begin) + count]


@dataclass(frozen=True, kw_only=True)
class LegacyRuns(Runs):
    """The runs of the published training: if nothing is left visible, one masked token is revealed.

    Use it to reproduce a published training, and `Runs` otherwise.
    """

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """Masks for `batch` clouds."""
        runs = self.hidden(generator)
        left = _left(runs, self.num_tokens)
        seen = self.seen(left, generator) if len(left) else self._shown(generator)
        return Masks(context=seen.expand(batch, -1), targets=runs.expand(batch, -1, -1))

    def _shown(self, generator: Generator) -> Annotated[Tensor, "K"]:
        _within(self.context, generator)  # the published code draws it, too
        return torch.randint(self.num_tokens, (1,), generator=generator, device=generator.device)


@dataclass(frozen=True, kw_only=True)
class Balls:
    """Balls in space: the tokens nearest to a random one; drawn per cloud.

        k = int(N r);   M balls of k tokens;   context: a ball of int(N r_c) tokens without the masked ones

    A cloud with too few visible tokens is redrawn. Contexts are truncated at random to the size of the smallest.

    Args:
        num_targets: Masked balls M.
        target: Smallest and largest share r of a masked ball; drawn once per batch.
        context: Smallest and largest share r_c of the visible ball.
        least: Minimum number of visible tokens.

    Raises:
        ValueError: If there is no ball, or a share is not between 0 and 1.

    Written from the description in Hu et al. 2024, arXiv:2409.15803; the numbers are ours.
    """

    num_targets: int = 4
    target: Share = (0.15, 0.2)
    context: Share = (0.85, 1.0)
    least: int = 4

    def __post_init__(self) -> None:
        check_shares(self.least, self.num_targets, target=self.target, context=self.context)

    def __call__(self, centres: Annotated[Tensor, "B N 3"], generator: Generator) -> Masks:
        """Masks for clouds with token positions `centres`, indices ascending.

        Raises:
            ValueError: If repeated draws leave too few visible tokens.
        """
        near = (
            torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist")
            .argsort(dim=-1)
            .to(generator.device)
        )  # (B, N, N), own index first
        batch, total = near.shape[:2]
        length = max(1, int(total * _within(self.target, generator)))
        balls, seen = self._draw(near, length, generator)
        for _ in range(TRIES):
            short = seen.sum(dim=1) < self.least
            if not bool(short.any()):
                return Masks(context=_cut(seen, generator), targets=balls.sort(dim=-1).values)
            again, seen_again = self._draw(near, length, generator)
            balls = torch.where(short[:, None, None], again, balls)
            seen = torch.where(short[:, None], seen_again, seen)
        raise _nothing_seen(self)

    def _draw(self, near: Tensor, length: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Masked balls `B M L`, and visible tokens `B N`, bool."""
        batch, total = near.shape[:2]
        rows = torch.arange(batch, device=near.device)
        seeds = torch.randint(total, (batch, self.num_targets + 1), generator=generator, device=generator.device)
        balls = near[rows[:, None], seeds[:, :-1], :length]
        share = torch.rand(batch, 1, generator=generator, device=generator.device)
        counts = (total * (self.context[0] + share * (self.context[1] - self.context[0]))).int()
        rank = near[rows, seeds[:, -1]].argsort(dim=-1)
        return balls, (rank < counts).scatter(1, balls.flatten(1), False)


POINT_RUNS: dict[str, type[Runs]] = {"runs": Runs, "legacy_runs": LegacyRuns}
"""Name -> sampler of runs."""


def pair(name: str, value: object) -> Share:
    """A range of shares from a configuration.

    Raises:
        ValueError: If it is not a pair of numbers.
    """
    if isinstance(value, Sequence) and len(value) == 2 and all(isinstance(one, int | float) for one in value):
        return (float(value[0]), float(value[1]))
    raise ValueError(f"{name} must be a range [low, high] of shares, got {value!r}")


def check_shares(tokens: int, targets: int, **shares: Share) -> None:
    """Refuse invalid shares and counts.

    Raises:
        ValueError: Names the range that is out of bounds.
    """
    if tokens < 1 or targets < 1:
        raise ValueError(f"need at least one token and one masked block, got {tokens} and {targets}")
    for name, (low, high) in shares.items():
        if not 0 < low <= high <= 1:
            raise ValueError(f"{name} must be a range (low, high) of shares above 0 and up to 1, got {(low, high)}")


def _within(share: Share, generator: Generator) -> float:
    drawn = torch.rand((), generator=generator, device=generator.device)
    return float(share[0] + (share[1] - share[0]) * drawn)


def _left(runs: Tensor, total: int) -> Annotated[Tensor, "N"]:
    free = torch.ones(total, dtype=torch.bool, device=runs.device)
    free[runs.flatten()] = False
    return free.nonzero().flatten()


def _cut(seen: Annotated[Tensor, "B N"], generator: Generator) -> Annotated[Tensor, "B K"]:
    """Truncate the visible tokens of each cloud to the smallest number, at random, indices ascending."""
    order = torch.rand(seen.shape, generator=generator, device=generator.device).masked_fill(~seen, torch.inf)
    return order.argsort(dim=1)[:, : int(seen.sum(dim=1).min())].sort(dim=1).values


def _nothing_seen(sampler: Runs | Balls) -> ValueError:
    return ValueError(
        f"masked blocks leave too few visible tokens in {TRIES} draws: mask fewer or smaller ones ({sampler})"
    )
