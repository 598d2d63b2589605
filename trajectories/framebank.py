"""A whole log in contiguous memory; batches are sampled from it without per-item work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from jepa_mpc.trajectories.actions import Joined
from jepa_mpc.trajectories.buffers import Buffers
from jepa_mpc.trajectories.windows import Blocks


@dataclass(frozen=True, kw_only=True)
class FrameBank:
    """All steps of a log in order (G of them), with the first step of each episode.

    Args:
        frames: uint8 `G C h w`, cameras stacked along C.
        actions: float32 `G A`; row g leads from step g to g + 1; the last row of an episode is zero.
        proprio: float32 `G P`.
        offsets: int64, first step of each episode, and G at the end.
        groups: int64, one number per episode; a split never separates episodes of one group (one lab).
        episodes: int64, the episodes that batches are sampled from.
        cameras: Camera names in stacking order.
        dt_s: Seconds between two steps.
        skip: Log steps between two observations of a window.
        blocks: The action between two observations: one action `joined` from those of the `skip` steps, or all of them
            `stacked` into a block of `skip * A` numbers.
        joined: How several actions combine into one: by their sum, their mean, or not at all ("never").
        origin: Source of the data and how it was read, JSON values.
        extras: Optional rows `G ...` of a window, by name (`clouds`).
    """

    frames: Tensor
    actions: Tensor
    proprio: Tensor
    offsets: Tensor
    groups: Tensor
    episodes: Tensor
    cameras: tuple[str, ...]
    dt_s: float
    skip: int = 1
    blocks: Blocks = "joined"
    joined: Joined = "sum"
    origin: dict[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.skip < 1 or self.blocks not in ("joined", "stacked"):
            raise ValueError(
                f"need skip >= 1 and blocks 'joined' or 'stacked', got skip={self.skip}, blocks={self.blocks!r}"
            )
        if self.joined == "never" and self.skip > 1 and self.blocks == "joined":
            raise ValueError(f"these actions cannot be joined over {self.skip} steps: set skip to 1 or stack them")

    @property
    def action_dim(self) -> int:
        """Width of the action between two observations of a window, a block if actions are stacked."""
        return int(self.actions.shape[1]) * (self.skip if self.blocks == "stacked" else 1)

    @property
    def step_s(self) -> float:
        """Seconds between two observations of a window."""
        return self.dt_s * self.skip

    @property
    def proprio_dim(self) -> int:
        """Number of proprioceptive values P."""
        return int(self.proprio.shape[1])

    @property
    def channels(self) -> int:
        """Channels C of the images, three per camera."""
        return int(self.frames.shape[1])

    @property
    def picture(self) -> tuple[int, int]:
        """Height and width of the images, px."""
        return int(self.frames.shape[-2]), int(self.frames.shape[-1])

    @property
    def num_episodes(self) -> int:
        """Number of episodes that batches are sampled from."""
        return len(self.episodes)

    @property
    def num_steps(self) -> int:
        """Observations in the chosen episodes."""
        return int(self._lengths().sum())

    def num_windows(self, length: int) -> int:
        """Number of windows of that many observations."""
        return int((self._lengths() - (length - 1) * self.skip).clamp_min(0).sum())

    def sample(
        self,
        batch: int,
        length: int,
        *,
        generator: torch.Generator,
        max_stride: int = 1,
        into: Buffers | None = None,
    ) -> dict[str, Tensor]:
        """Sample windows uniformly; no window crosses an episode.

        Args:
            batch: Windows B.
            length: Observations T of each.
            generator: A CPU generator; it alone determines the windows.
            max_stride: With more than 1, every second window has a random stride of up to `max_stride` observations;
                the
                actions in between are joined (exact for displacements, approximate for the small rotations of one
                step).
                It multiplies `skip`.
            into: Memory to sample into; fresh memory by default.

        Returns:
            frames `B T C h w` (uint8), actions `B T-1 A`, proprio `B T P`, extras `B T ...`, episode `B`.

        Raises:
            ValueError: If no episode has that many steps, or random strides are used with actions that cannot be
                joined.
        """
        if max_stride > 1 and (self.blocks == "stacked" or self.joined == "never"):
            what = "stacked blocks are all of one length" if self.blocks == "stacked" else "these actions do not join"
            raise ValueError(f"{what}: set max_stride to 1, it is {max_stride}")
        strides = torch.ones(batch, dtype=torch.int64)
        if max_stride > 1:
            wide = torch.randint(1, max_stride + 1, (batch,), generator=generator)
            strides = torch.where(torch.rand(batch, generator=generator) < 0.5, strides, wide)
        spans = (length - 1) * self.skip * torch.arange(max_stride + 1) + 1  # from first to last, by stride
        ends = (self._lengths() - spans[:, None] + 1).clamp_min(0).cumsum(1)[strides]  # (B, episodes)
        if not len(self.episodes) or int(ends[:, -1].min()) == 0:
            raise ValueError(f"no episode has the {int(spans[strides.max()])} steps of a window")
        drawn = (torch.rand(batch, generator=generator, dtype=torch.float64) * ends[:, -1]).long()
        place = torch.searchsorted(ends, drawn[:, None], right=True)[:, 0]
        before = torch.cat([ends.new_zeros(batch, 1), ends], dim=1).gather(1, place[:, None])[:, 0]
        episode = self.episodes[place]
        starts = self.offsets[episode] + drawn - before
        return self.windows_at(starts, length, strides=strides, into=into) | {"episode": episode}

    def windows_at(
        self, starts: Tensor, length: int, *, strides: Tensor | None = None, into: Buffers | None = None
    ) -> dict[str, Tensor]:
        """The windows that begin at the steps `B` of the bank.

        Args:
            starts: The steps.
            length: Observations T of each window.
            strides: Stride of each window `B` in observations of the bank; 1 by default.
            into: Memory to gather into; fresh memory by default.
        """
        every = torch.full_like(starts, self.skip) if strides is None else strides * self.skip
        steps = (starts[:, None] + every[:, None] * torch.arange(length)).to(self.frames.device)  # (B, T)
        return {
            "frames": _rows(self.frames, steps, "frames", into),
            "actions": self._between(steps, every),
            "proprio": _rows(self.proprio, steps, "proprio", into),
            **{name: _rows(rows, steps, name, into) for name, rows in self.extras.items()},
        }

    def split(self, share: float, *, generator: torch.Generator) -> tuple[FrameBank, FrameBank]:
        """Two banks over the same memory: training, and about `share` of the groups for validation.

        Raises:
            ValueError: If one side would be empty.
        """
        names = self.groups[self.episodes].unique()
        count = max(round(share * len(names)), 1 if share > 0 else 0)
        if not 0 < count < len(names):
            raise ValueError(f"cannot put {share:.0%} of {len(names)} groups aside and keep both sides filled")
        chosen = names[torch.randperm(len(names), generator=generator)[:count]]
        held = torch.isin(self.groups[self.episodes], chosen)
        return replace(self, episodes=self.episodes[~held]), replace(self, episodes=self.episodes[held])

    def to(self, device: torch.device | str) -> FrameBank:
        """The same bank with all its rows on another device."""
        return replace(
            self, frames=self.frames.to(device), actions=self.actions.to(device), proprio=self.proprio.to(device),
            extras={name: rows.to(device) for name, rows in self.extras.items()},
        )  # fmt: skip

    def action_rows(self) -> Tensor:
        """The actions between consecutive observations of the chosen episodes, from every step, `G A`."""
        steps = self._steps(leave_out=self.skip)
        if self.skip == 1:
            return self.actions[steps]
        pairs = steps[:, None] + torch.tensor([0, self.skip], device=steps.device)
        return self._between(pairs, torch.full_like(steps, self.skip))[:, 0]

    def proprio_rows(self) -> Tensor:
        """All proprioception of the chosen episodes `G P`."""
        return self.proprio[self._steps(leave_out=0)]

    @cached_property
    def _walked(self) -> Tensor:
        """Cumulative sum of the actions before each step of the bank, `G A` in float64."""
        total = self.actions.double().cumsum(0)
        return torch.cat([torch.zeros_like(total[:1]), total[:-1]])

    def _between(self, steps: Tensor, every: Tensor) -> Tensor:
        """Actions `B T-1 A` between the steps `B T`, which have a distance of `every` `B`."""
        if self.blocks == "stacked":
            inside = steps[:, :-1, None] + torch.arange(self.skip, device=steps.device)  # (B, T-1, k)
            return self.actions[inside].flatten(2)
        so_far = _rows(self._walked, steps)
        summed = so_far[:, 1:] - so_far[:, :-1]
        if self.joined == "mean":
            summed = summed / every.to(summed.device)[:, None, None]
        return summed.to(self.actions.dtype)

    def _lengths(self) -> Tensor:
        return self.offsets[self.episodes + 1] - self.offsets[self.episodes]

    def _steps(self, leave_out: int) -> Tensor:
        """Row numbers of the chosen episodes without their last `leave_out` steps."""
        chosen = torch.zeros(len(self.actions), dtype=torch.bool)
        for episode in self.episodes.tolist():
            start, stop = int(self.offsets[episode]), int(self.offsets[episode + 1]) - leave_out
            chosen[start : max(start, stop)] = True
        return chosen.nonzero().flatten().to(self.actions.device)


def _rows(x: Tensor, steps: Tensor, name: str = "", into: Buffers | None = None) -> Tensor:
    """Rows `B T ...` of a tensor `G ...`."""
    flat = steps.flatten()
    if into is None:
        return x.index_select(0, flat).unflatten(0, steps.shape)
    return torch.index_select(x, 0, flat, out=into.like(name, x, len(flat))).unflatten(0, steps.shape)
