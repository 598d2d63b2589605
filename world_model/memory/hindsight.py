"""Latents of a log, and hindsight samples for a policy: how a state was reached from an earlier one.

    a_t, ..., a_{t+H-1}  given  z_t, z_{t+k}, k          zero from a_{t+k} on: the goal is reached

Every later state of an episode serves as a goal (Andrychowicz et al. 2017, arXiv:1707.01495).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated

import torch
from torch import Generator, Tensor


@dataclass(frozen=True, kw_only=True)
class LatentLog:
    """All steps of some episodes, concatenated (G of them).

    Args:
        latents: `G N D`.
        actions: `G A`; row g leads from step g to g + 1, the last one of an episode is unused.
        offsets: First step of each episode, and G at the end.
        groups: One number per episode; episodes of one group were recorded in one lab.

    Raises:
        ValueError: If the sizes do not fit each other, or an episode has fewer than two steps.
    """

    latents: Annotated[Tensor, "G N D"]
    actions: Annotated[Tensor, "G A"]
    offsets: Tensor
    groups: Tensor

    def __post_init__(self) -> None:
        count, episodes = len(self.latents), len(self.groups)
        if len(self.actions) != count or len(self.offsets) != episodes + 1 or int(self.offsets[-1]) != count:
            raise ValueError(
                f"{count} latents, {len(self.actions)} actions, {len(self.offsets)} offsets and {episodes} groups do "
                "not form a log"
            )
        if not episodes or int(self.offsets.diff().min()) < 2:
            raise ValueError("episodes need two steps or more")

    def hindsight(self, batch: int, *, chunk: int, max_steps: int, generator: Generator) -> dict[str, Tensor]:
        """Draw states, later states of the same episodes, and the first actions between them.

        Args:
            batch: Number of samples B.
            chunk: Actions per sample (H).
            max_steps: Maximum number of steps between state and goal.
            generator: Source of random numbers.

        Returns:
            state `B N D`, goal `B N D`, steps `B` (1 to `max_steps`), actions `B H A`.
        """
        start = self._leaving[_draw(len(self._leaving), batch, generator)]
        room = (self._last[start] - start).clamp(max=max_steps)
        steps = 1 + (torch.rand(batch, generator=generator) * room).long().clamp(max=room - 1)
        ahead = torch.arange(chunk)
        rows = (start[:, None] + ahead).clamp(max=len(self.actions) - 1)  # (B, H)
        under_way = ahead < steps[:, None]
        actions = torch.where(under_way[..., None], self.actions[rows], 0.0)
        return {"state": self.latents[start], "goal": self.latents[start + steps], "steps": steps, "actions": actions}

    def pairs(self, batch: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
        """Two states of the same lab, `B N D` twice, from any of its episodes."""
        here = _draw(len(self.latents), batch, generator)
        first, count = self.span_of_place(here)
        there = first + (torch.rand(batch, generator=generator) * count).long().clamp(max=count - 1)
        return self.latents[here], self.latents[self.by_place[there]]

    def span_of_place(self, rows: Annotated[Tensor, "B"]) -> tuple[Tensor, Tensor]:
        """Start in `by_place` and number of the steps in each row's lab: `B` twice."""
        place = self._place[rows]
        return self._firsts[place], self._counts[place]

    def only(self, episodes: Annotated[Tensor, "G"]) -> LatentLog:
        """The log restricted to these episodes, in that order."""
        spans = [torch.arange(int(self.offsets[e]), int(self.offsets[e + 1])) for e in episodes.tolist()]
        rows = torch.cat(spans) if spans else torch.zeros(0, dtype=torch.int64)
        offsets = torch.tensor([0, *(len(span) for span in spans)]).cumsum(0)
        return replace(
            self, latents=self.latents[rows], actions=self.actions[rows], offsets=offsets, groups=self.groups[episodes]
        )

    @cached_property
    def _episode(self) -> Tensor:
        """The episode of each step `G`."""
        return torch.repeat_interleave(torch.arange(len(self.groups)), self.offsets.diff())

    @cached_property
    def _last(self) -> Tensor:
        """The last step of each step's episode `G`."""
        return self.offsets[self._episode + 1] - 1

    @cached_property
    def _leaving(self) -> Tensor:
        """The steps that have a successor."""
        steps = torch.arange(len(self.latents))
        return steps[steps < self._last]

    @cached_property
    def _place(self) -> Tensor:
        """Lab index of each step `G`, from 0."""
        return self.groups.unique(return_inverse=True)[1][self._episode]

    @cached_property
    def _counts(self) -> Tensor:
        """Number of steps per lab."""
        return torch.bincount(self._place)

    @cached_property
    def _firsts(self) -> Tensor:
        """Start of each lab's steps in `by_place`."""
        return self._counts.cumsum(0) - self._counts

    @cached_property
    def by_place(self) -> Tensor:
        """The steps, sorted by lab."""
        return self._place.argsort(stable=True)


def _draw(count: int, batch: int, generator: Generator) -> Tensor:
    return torch.randint(count, (batch,), generator=generator)
