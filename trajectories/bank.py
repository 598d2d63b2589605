"""A whole log in contiguous memory, from which batches are drawn without any per-item work.

The pictures and rows lie in a cache (`trajectories.cache`) and are mapped, not read, so processes that train on the
same log share one copy in the page cache; the actions are computed when the bank is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from trajectories.actions import ActionPart, Joined, PoseDelta
from trajectories.buffers import Buffers
from trajectories.cache import Cache, CacheOptions, is_cache
from trajectories.earlier import earlier_bank
from trajectories.episode import STATE
from trajectories.ingest import cached_elsewhere, ingest

Progress = Callable[[Iterable[int]], Iterable[int]]
Blocks = Literal["joined", "stacked"]


@dataclass(frozen=True, kw_only=True)
class FrameBank:
    """All steps of a log, one after another (G of them), and where each episode begins.

    Args:
        frames: uint8 `G C h w`, cameras stacked along C.
        actions: float32 `G A`; row g leads from step g to g + 1; the last row of an episode is zero.
        proprio: float32 `G P`.
        offsets: int64, first step of each episode, and G at the end.
        groups: int64, one number per episode; episodes of one group (one lab) stay on one side of a split.
        episodes: int64, the episodes that batches are drawn from.
        cameras: Camera names in stacking order.
        dt_s: Seconds between two steps.
        joined: What one action over several steps is of theirs: their sum, or their mean.
        origin: Where it comes from and how it was read, JSON values.
    """

    frames: Tensor
    actions: Tensor
    proprio: Tensor
    offsets: Tensor
    groups: Tensor
    episodes: Tensor
    cameras: tuple[str, ...]
    dt_s: float
    joined: Joined = "sum"
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def action_dim(self) -> int:
        """Number of action axes A."""
        return int(self.actions.shape[1])

    @property
    def proprio_dim(self) -> int:
        """Number of proprioceptive values P."""
        return int(self.proprio.shape[1])

    @property
    def picture(self) -> tuple[int, int]:
        """Height and width of the pictures, px."""
        return int(self.frames.shape[-2]), int(self.frames.shape[-1])

    @property
    def num_episodes(self) -> int:
        """How many episodes batches are drawn from."""
        return len(self.episodes)

    @property
    def num_steps(self) -> int:
        """Observations in the chosen episodes."""
        return int(self._lengths().sum())

    def num_windows(self, length: int) -> int:
        """How many windows of that many observations there are."""
        return int((self._lengths() - length + 1).clamp_min(0).sum())

    def sample(
        self,
        batch: int,
        length: int,
        *,
        generator: torch.Generator,
        max_stride: int = 1,
        skip: int = 1,
        blocks: Blocks = "joined",
        into: Buffers | None = None,
    ) -> dict[str, Tensor]:
        """Draw windows evenly from all there are; none crosses an episode.

        Args:
            batch: Windows B.
            length: Observations T of each.
            generator: A CPU generator; it alone decides which windows come.
            max_stride: With more than 1, every second window takes not each step of the log but each second, third,
                ..., up to this stride; its actions are those of the steps in between, joined (exact for
                displacements, good for the small rotations of one step).
            skip: Steps of the log from one observation to the next, in all windows alike.
            blocks: What stands between two observations that are `skip` steps apart: one action, `joined` from the
                log's, or all of them `stacked` into a block of `skip * A` numbers.
            into: Memory to draw into; fresh memory by default.

        Returns:
            frames `B T C h w` (uint8), actions `B T-1 A`, proprio `B T P`, episode `B`.

        Raises:
            ValueError: If no episode has that many steps, or blocks are to be stacked over random strides.
        """
        if max_stride > 1 and blocks == "stacked":
            raise ValueError(f"stacked blocks all have the same length: set max_stride to 1 (it is {max_stride})")
        strides = torch.ones(batch, dtype=torch.int64)
        if max_stride > 1:
            wide = torch.randint(1, max_stride + 1, (batch,), generator=generator)
            strides = torch.where(torch.rand(batch, generator=generator) < 0.5, strides, wide)
        # observations from first to last, by stride
        spans = (length - 1) * skip * torch.arange(max_stride + 1) + 1
        ends = (self._lengths() - spans[:, None] + 1).clamp_min(0).cumsum(1)[strides]  # (B, episodes)
        if not len(self.episodes) or int(ends[:, -1].min()) == 0:
            raise ValueError(f"no episode has the {int(spans[strides.max()])} steps of a window")
        drawn = (torch.rand(batch, generator=generator, dtype=torch.float64) * ends[:, -1]).long()
        place = torch.searchsorted(ends, drawn[:, None], right=True)[:, 0]
        before = torch.cat([ends.new_zeros(batch, 1), ends], dim=1).gather(1, place[:, None])[:, 0]
        episode = self.episodes[place]
        starts = self.offsets[episode] + drawn - before
        windows = self.windows_at(starts, length, strides=strides * skip, blocks=blocks, into=into)
        return windows | {"episode": episode}

    def windows_at(
        self,
        starts: Tensor,
        length: int,
        *,
        strides: Tensor | None = None,
        blocks: Blocks = "joined",
        into: Buffers | None = None,
    ) -> dict[str, Tensor]:
        """The windows that begin at the steps `B` of the bank and take every stride-th step `B` (each, by default).

        Raises:
            ValueError: If blocks are to be stacked over different strides, or `blocks` is unknown.
        """
        strides = torch.ones_like(starts) if strides is None else strides
        steps = (starts[:, None] + strides[:, None] * torch.arange(length)).to(self.frames.device)  # (B, T)
        return {
            "frames": _rows(self.frames, steps, "frames", into),
            "actions": self._between(steps, strides, blocks),
            "proprio": _rows(self.proprio, steps, "proprio", into),
        }

    def split(self, share: float, *, generator: torch.Generator) -> tuple[FrameBank, FrameBank]:
        """Two banks over the same memory: training, and about `share` of the groups for validation.

        Raises:
            ValueError: If one side would stay empty.
        """
        names = self.groups[self.episodes].unique()
        count = max(round(share * len(names)), 1 if share > 0 else 0)
        if not 0 < count < len(names):
            raise ValueError(f"cannot put {share:.0%} of {len(names)} groups aside and keep both sides filled")
        chosen = names[torch.randperm(len(names), generator=generator)[:count]]
        held = torch.isin(self.groups[self.episodes], chosen)
        return replace(self, episodes=self.episodes[~held]), replace(self, episodes=self.episodes[held])

    def to(self, device: torch.device | str) -> FrameBank:
        """The same bank with frames, actions and proprioception on another device."""
        return replace(
            self, frames=self.frames.to(device), actions=self.actions.to(device), proprio=self.proprio.to(device)
        )

    def action_rows(self) -> Tensor:
        """All actions of the chosen episodes `G A`, the empty last rows left out."""
        return self.actions[self._steps(leave_out=1)]

    def proprio_rows(self) -> Tensor:
        """All proprioception of the chosen episodes `G P`."""
        return self.proprio[self._steps(leave_out=0)]

    @cached_property
    def _walked(self) -> Tensor:
        """Sum of all actions before each step of the bank, `G A` in float64."""
        total = self.actions.double().cumsum(0)
        return torch.cat([torch.zeros_like(total[:1]), total[:-1]])

    def _between(self, steps: Tensor, strides: Tensor, blocks: Blocks) -> Tensor:
        """Actions `B T-1 A` between the steps `B T`; stacked ones are `B T-1 kA`."""
        if blocks == "stacked":
            stride = int(strides[0])
            if not bool((strides == stride).all()):
                raise ValueError("blocks can only be stacked over one stride")
            every = steps[:, :-1, None] + torch.arange(stride, device=steps.device)  # (B, T-1, k)
            return self.actions[every].flatten(2)
        if blocks != "joined":
            raise ValueError(f"blocks must be 'joined' or 'stacked', got {blocks!r}")
        so_far = _rows(self._walked, steps)
        summed = so_far[:, 1:] - so_far[:, :-1]
        if self.joined == "mean":
            summed = summed / strides.to(summed.device)[:, None, None]
        return summed.to(self.actions.dtype)

    def _lengths(self) -> Tensor:
        return self.offsets[self.episodes + 1] - self.offsets[self.episodes]

    def _steps(self, leave_out: int) -> Tensor:
        """Row numbers of the chosen episodes without their last `leave_out` steps."""
        chosen = torch.zeros(len(self.actions), dtype=torch.bool)
        for episode in self.episodes.tolist():
            chosen[int(self.offsets[episode]) : int(self.offsets[episode + 1]) - leave_out] = True
        return chosen.nonzero().flatten().to(self.actions.device)


def _rows(x: Tensor, steps: Tensor, name: str = "", into: Buffers | None = None) -> Tensor:
    """Rows `B T ...` of a tensor `G ...`."""
    flat = steps.flatten()
    if into is None:
        return x.index_select(0, flat).unflatten(0, steps.shape)
    return torch.index_select(x, 0, flat, out=into.like(name, x, len(flat))).unflatten(0, steps.shape)


def load_bank(
    folder: str | Path,
    *,
    cameras: Sequence[str] | None = None,
    actions: ActionPart | None = None,
    options: CacheOptions | None = None,
    place: str | Path | None = None,
    workers: int = 1,
    progress: Progress = iter,
) -> FrameBank:
    """The bank of a log of any format, or of a cache; the cache is made first if it is not there or is out of date.

    Args:
        folder: A log, or a finished cache.
        cameras: Which cameras, in stacking order; None for all.
        actions: What counts as the action between two steps; the measured motion by default.
        options: What else is asked of the cache: size of the pictures, robot map, format.
        place: Where the cache stands; beside the log by default.
        workers: Processes that make the cache.
        progress: Wraps the loop over episodes (a progress bar).

    Raises:
        BadEpisode: If an episode is damaged.
        ValueError: If the log does not have what is asked for.
        OSError: If the disk is full; nothing half built stays.
    """
    part = PoseDelta() if actions is None else actions
    options = options or CacheOptions()
    if cameras is not None:
        options = replace(options, cameras=tuple(cameras))
    path = Path(folder)
    if is_cache(path):
        return bank_of(Cache(path), part, cameras=options.cameras)
    if place is None:
        known = earlier_bank(path, options, part)
        if known is not None:
            return FrameBank(**known)
        wider = cached_elsewhere(path, options)
        if wider is not None:
            return bank_of(wider, part, cameras=options.cameras)
    return bank_of(ingest(path, options=options, place=place, workers=workers, progress=progress), part)


def bank_of(cache: Cache, part: ActionPart, *, cameras: Sequence[str] | None = None) -> FrameBank:
    """The bank over a cache, without copying a picture.

    Raises:
        ValueError: If the cameras do not stand next to each other in the cache in this order, or the log lacks a
            column that the actions are made of.
    """
    missing = [name for name in part.needs if name not in cache.columns]
    if missing:
        known = ", ".join(cache.columns)
        raise ValueError(
            f"actions {part.name!r} are made of {', '.join(missing)}, which this log does not have; it has {known}: "
            "give a robot map (robot=...), or other actions"
        )
    lengths, offsets = cache.lengths, cache.offsets
    rows = {name: cache.rows(name) for name in part.needs}
    found = []
    for start, length in zip(offsets, lengths, strict=False):
        found.append(part({name: column[start : start + length] for name, column in rows.items()}))
    width = next((one.shape[1] for one in found if len(one)), 0)
    actions = np.zeros((int(offsets[-1]), width), dtype=np.float32)
    for start, one in zip(offsets, found, strict=False):
        actions[start : start + len(one)] = one
    chosen = cache.cameras if cameras is None else tuple(cameras)
    return FrameBank(
        frames=torch.from_numpy(cache.frames)[:, _channels(cache.cameras, chosen)],
        actions=torch.from_numpy(actions),
        proprio=torch.from_numpy(cache.rows(STATE)),
        offsets=torch.from_numpy(offsets),
        groups=torch.tensor(cache.groups, dtype=torch.int64),
        episodes=torch.arange(len(lengths)),
        cameras=chosen,
        dt_s=cache.dt_s,
        joined=part.joined,
        origin={"robot": cache.robot.to_dict(), "fit": cache.fit.to_dict(), "source": cache.index["source"]},
    )


def _channels(held: tuple[str, ...], wanted: tuple[str, ...]) -> slice:
    """The channels of cameras that stand next to each other."""
    for at in range(len(held) - len(wanted) + 1):
        if wanted and held[at : at + len(wanted)] == wanted:
            return slice(3 * at, 3 * (at + len(wanted)))
    raise ValueError(f"the cache has the cameras {', '.join(held)}; {', '.join(wanted)} must be ingested by themselves")
