"""A whole log in contiguous memory, from which batches are drawn without any per-item work."""

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
        skip: Steps of the log from one observation of a window to the next.
        blocks: What stands between two observations that are `skip` steps apart: one action, `joined` from the log's,
            or all of them `stacked` into a block of `skip * A` numbers.
        joined: What one action over several steps is of theirs: their sum, their mean, or nothing ("never").
        origin: Where it comes from and how it was read, JSON values.
        extras: Further rows `G ...` that windows hold, by name (`clouds`).
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
        """Numbers between two observations of a window: those of one action, or of a block of them."""
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
        """Channels C of the pictures, three per camera."""
        return int(self.frames.shape[1])

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
        """Draw windows evenly from all there are; none crosses an episode.

        Args:
            batch: Windows B.
            length: Observations T of each.
            generator: A CPU generator; it alone decides which windows come.
            max_stride: With more than 1, every second window takes not each step of the log but each second, third,
                ..., up to this stride; its actions are those of the steps in between, joined (exact for
                displacements, good for the small rotations of one step). It multiplies `skip`.
            into: Memory to draw into; fresh memory by default.

        Returns:
            frames `B T C h w` (uint8), actions `B T-1 A`, proprio `B T P`, extras `B T ...`, episode `B`.

        Raises:
            ValueError: If no episode has that many steps, or what cannot be joined is to be over random strides.
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
            strides: Which observations of the bank's own spacing are taken `B`: each (by default), each second, ...
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
        """The same bank with all its rows on another device."""
        return replace(
            self, frames=self.frames.to(device), actions=self.actions.to(device), proprio=self.proprio.to(device),
            extras={name: rows.to(device) for name, rows in self.extras.items()},
        )  # fmt: skip

    def action_rows(self) -> Tensor:
        """What lies between two observations, from every step of the chosen episodes that has one after it, `G A`."""
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
        """Sum of all actions before each step of the bank, `G A` in float64."""
        total = self.actions.double().cumsum(0)
        return torch.cat([torch.zeros_like(total[:1]), total[:-1]])

    def _between(self, steps: Tensor, every: Tensor) -> Tensor:
        """Actions `B T-1 A` between the steps `B T`, which are `every` `B` apart."""
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
