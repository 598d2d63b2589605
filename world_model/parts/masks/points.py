"""Which neighbourhoods of a point cloud are hidden: runs along an order, or balls in space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor

from jepa_mpc.types import Masks

Share = tuple[float, float]
TRIES = 200


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs of tokens that follow each other in the order of the cloud; one draw serves the whole batch.

        k = int(N r);   M runs of k tokens with independent starts, which may overlap
        context: one run of the tokens that are left, int(n r_c) of n; it may jump over a hidden run

    Each cloud has an order of its own, so one draw hides another part of each. A draw that leaves nothing to see is
    made again.

    Args:
        num_tokens: Tokens N of a cloud.
        num_targets: Runs M that are hidden.
        target: Smallest and largest share r of a hidden run; drawn once per batch.
        context: Smallest and largest share r_c of what is left that is seen.

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
            ValueError: If the runs hide everything again and again.
        """
        for _ in range(TRIES):
            runs = self.hidden(generator)
            left = _left(runs, self.num_tokens)
            if len(left):
                seen = self.seen(left, generator)
                return Masks(context=seen.expand(batch, -1), targets=runs.expand(batch, -1, -1))
        raise _nothing_seen(self)

    def hidden(self, generator: Generator) -> Annotated[Tensor, "M L"]:
        """The hidden runs."""
        length = max(1, int(self.num_tokens * _within(self.target, generator)))
        starts = torch.randint(self.num_tokens - length + 1, (self.num_targets, 1), generator=generator,
                               device=generator.device)  # fmt: skip
        return starts + torch.arange(length, device=generator.device)

    def seen(self, left: Annotated[Tensor, "N"], generator: Generator) -> Annotated[Tensor, "K"]:
        """A run of the tokens that are left."""
        count = max(1, int(_within(self.context, generator) * len(left)))
        begin = torch.randint(len(left) - count + 1, (), generator=generator, device=generator.device)
        return left[int(begin) : int(begin) + count]


@dataclass(frozen=True, kw_only=True)
class LegacyRuns(Runs):
    """The runs of the published training: where nothing is left to see, one hidden token is shown.

    Use it to repeat a published run, and `Runs` for all else.
    """

    def __call__(self, batch: int, generator: Generator) -> Masks:
        """Masks for `batch` clouds."""
        runs = self.hidden(generator)
        left = _left(runs, self.num_tokens)
        seen = self.seen(left, generator) if len(left) else self._shown(generator)
        return Masks(context=seen.expand(batch, -1), targets=runs.expand(batch, -1, -1))

    def _shown(self, generator: Generator) -> Annotated[Tensor, "K"]:
        _within(self.context, generator)  # drawn there as well
        return torch.randint(self.num_tokens, (1,), generator=generator, device=generator.device)


@dataclass(frozen=True, kw_only=True)
class Balls:
    """Balls in space: the tokens nearest to a random one; each cloud has its own.

        k = int(N r);   M balls of k tokens;   context: a ball of int(N r_c) tokens without the hidden ones

    A cloud of which too little would be seen is drawn again. Contexts are cut at random to the size of the smallest.

    Args:
        num_targets: Balls M that are hidden.
        target: Smallest and largest share r of a hidden ball; drawn once per batch.
        context: Smallest and largest share r_c of the ball that is seen.
        least: Tokens that must be seen.

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
        """Masks for clouds whose tokens stand at `centres`, indices rising.

        Raises:
            ValueError: If too little is left to see again and again.
        """
        near = torch.cdist(centres, centres).argsort(dim=-1).to(generator.device)  # (B, N, N), each one's own first
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
        """Hidden balls `B M L`, and where tokens are seen `B N`, True there."""
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


def check_shares(tokens: int, targets: int, **shares: Share) -> None:
    """Refuse shares and counts that no sampler can use.

    Raises:
        ValueError: With the name of the range that is out of bounds.
    """
    if tokens < 1 or targets < 1:
        raise ValueError(f"need at least one token and one hidden block, got {tokens} and {targets}")
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
    """As many seen tokens of each as the smallest has, drawn at random, indices rising."""
    order = torch.rand(seen.shape, generator=generator, device=generator.device).masked_fill(~seen, torch.inf)
    return order.argsort(dim=1)[:, : int(seen.sum(dim=1).min())].sort(dim=1).values


def _nothing_seen(sampler: Runs | Balls) -> ValueError:
    return ValueError(f"hidden blocks leave too little to see in {TRIES} draws: hide fewer or smaller ones ({sampler})")
