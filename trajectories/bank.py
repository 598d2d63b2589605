"""A whole log in contiguous memory, from which batches are drawn without any per-item work.

The arrays are built once, with every episode checked, and kept as .npy files beside the log; they are mapped, not read,
so processes that train on the same log share one copy in the page cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.files import atomic_folder, write_json
from trajectories.actions import ActionPart, PoseDelta
from trajectories.episode import STATE
from trajectories.formats.npz import NpzStore
from trajectories.windows import image_fields, stack_cameras

BANK_VERSION = 1
PARTS = ("frames", "actions", "proprio", "offsets", "groups")
Progress = Callable[[Iterable[int]], Iterable[int]]


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
    """

    frames: Tensor
    actions: Tensor
    proprio: Tensor
    offsets: Tensor
    groups: Tensor
    episodes: Tensor
    cameras: tuple[str, ...]
    dt_s: float

    @property
    def action_dim(self) -> int:
        """Number of action axes A."""
        return int(self.actions.shape[1])

    @property
    def proprio_dim(self) -> int:
        """Number of proprioceptive values P."""
        return int(self.proprio.shape[1])

    @property
    def num_steps(self) -> int:
        """Observations in the chosen episodes."""
        return int(self._lengths().sum())

    def num_windows(self, length: int) -> int:
        """How many windows of that many observations there are."""
        return int((self._lengths() - length + 1).clamp_min(0).sum())

    def sample(self, batch: int, length: int, *, generator: torch.Generator, max_stride: int = 1) -> dict[str, Tensor]:
        """Draw windows evenly from all there are; none crosses an episode.

        Args:
            batch: Windows B.
            length: Observations T of each.
            generator: A CPU generator; it alone decides which windows come.
            max_stride: With more than 1, every second window takes not each step of the log but each second, third,
                ..., up to this stride; its actions are those of the steps in between, added up (exact for
                displacements, good for the small rotations of one step).

        Returns:
            frames `B T C h w` (uint8), actions `B T-1 A`, proprio `B T P`, episode `B`.

        Raises:
            ValueError: If no episode has that many steps.
        """
        strides = torch.ones(batch, dtype=torch.int64)
        if max_stride > 1:
            wide = torch.randint(1, max_stride + 1, (batch,), generator=generator)
            strides = torch.where(torch.rand(batch, generator=generator) < 0.5, strides, wide)
        spans = (length - 1) * torch.arange(max_stride + 1) + 1  # observations from first to last, by stride
        ends = (self._lengths() - spans[:, None] + 1).clamp_min(0).cumsum(1)[strides]  # (B, episodes)
        if not len(self.episodes) or int(ends[:, -1].min()) == 0:
            raise ValueError(f"no episode has the {int(spans[strides.max()])} steps of a window")
        drawn = (torch.rand(batch, generator=generator, dtype=torch.float64) * ends[:, -1]).long()
        place = torch.searchsorted(ends, drawn[:, None], right=True)[:, 0]
        before = torch.cat([ends.new_zeros(batch, 1), ends], dim=1).gather(1, place[:, None])[:, 0]
        episode = self.episodes[place]
        starts = self.offsets[episode] + drawn - before
        return self.windows_at(starts, length, strides=strides) | {"episode": episode}

    def windows_at(self, starts: Tensor, length: int, *, strides: Tensor | None = None) -> dict[str, Tensor]:
        """The windows that begin at the steps `B` of the bank and take every stride-th step `B` (each, by default)."""
        strides = torch.ones_like(starts) if strides is None else strides
        steps = (starts[:, None] + strides[:, None] * torch.arange(length)).to(self.frames.device)  # (B, T)
        so_far = _rows(self._walked, steps)
        return {
            "frames": _rows(self.frames, steps),
            "actions": (so_far[:, 1:] - so_far[:, :-1]).to(self.actions.dtype),
            "proprio": _rows(self.proprio, steps),
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

    @cached_property
    def _walked(self) -> Tensor:
        """Sum of all actions before each step of the bank, `G A` in float64."""
        total = self.actions.double().cumsum(0)
        return torch.cat([torch.zeros_like(total[:1]), total[:-1]])

    def _lengths(self) -> Tensor:
        return self.offsets[self.episodes + 1] - self.offsets[self.episodes]


def _rows(x: Tensor, steps: Tensor) -> Tensor:
    """Rows `B T ...` of a tensor `G ...`."""
    return x.index_select(0, steps.flatten()).unflatten(0, steps.shape)


def load_bank(
    folder: str | Path,
    *,
    cameras: Sequence[str] | None = None,
    actions: ActionPart | None = None,
    progress: Progress = iter,
) -> FrameBank:
    """Map the bank of a log, building it first if it is not there or the log has changed.

    Args:
        folder: An npz log.
        cameras: Which cameras, in stacking order; None for all.
        actions: What counts as the action between two steps; the measured motion by default.
        progress: Wraps the loop over episodes (a progress bar).

    Raises:
        BadEpisode: If an episode is damaged.
        OSError: If the disk is full; nothing half built stays.
    """
    part = PoseDelta() if actions is None else actions
    store = NpzStore(folder)
    images = image_fields(store.fields, store.cameras if cameras is None else cameras)
    place = store.folder / ".bank" / content_key(store, images, part)
    if not (place / "bank.json").exists():
        _build(place, store, images, part, progress)
    return _map(place)


def content_key(store: NpzStore, images: Sequence[str], part: ActionPart) -> str:
    """A name that changes when the log, the cameras or the action part change."""
    stats = [(path.name, (stat := path.stat()).st_size, stat.st_mtime_ns) for path in store.paths]
    text = json.dumps([BANK_VERSION, stats, list(images), part.name])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _build(place: Path, store: NpzStore, images: Sequence[str], part: ActionPart, progress: Progress) -> None:
    """Fill the arrays in a draft folder and move it into place; of several writers one builds, the others wait."""
    place.parent.mkdir(exist_ok=True)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the system even if this process is killed
        if (place / "bank.json").exists():
            return
        with atomic_folder(place) as draft:
            write_json(draft / "bank.json", _fill(draft, store, images, part, progress))


def _fill(draft: Path, store: NpzStore, images: Sequence[str], part: ActionPart, progress: Progress) -> dict[str, Any]:
    offsets = np.concatenate([[0], np.cumsum(store.lengths)]).astype(np.int64)
    first = store.episode(0)
    height, width = first.arrays[images[0]].shape[1:3]
    total = int(offsets[-1])
    new = np.lib.format.open_memmap
    frames = new(draft / "frames.npy", "w+", np.uint8, (total, 3 * len(images), height, width))
    proprio = new(draft / "proprio.npy", "w+", np.float32, (total, first.arrays[STATE].shape[1]))
    actions = np.zeros((total, part(first.arrays).shape[1]), dtype=np.float32)
    groups = np.zeros(len(store), dtype=np.int64)
    for index in progress(range(len(store))):
        episode = store.episode(index)
        start, stop = offsets[index], offsets[index + 1]
        frames[start:stop] = stack_cameras(episode.arrays, images)
        proprio[start:stop] = episode.arrays[STATE]
        actions[start : stop - 1] = part(episode.arrays)
        groups[index] = int(episode.metadata.get("lab_index", index))
    frames.flush()
    proprio.flush()
    np.save(draft / "actions.npy", actions)
    np.save(draft / "offsets.npy", offsets)
    np.save(draft / "groups.npy", groups)
    cameras = [name.removeprefix("observation.images.") for name in images]
    return {"version": BANK_VERSION, "cameras": cameras, "dt_s": store.dt_s, "actions": part.name}


def _map(place: Path) -> FrameBank:
    facts = json.loads((place / "bank.json").read_text())
    # copy-on-write: writable for torch's sake, yet the pages stay shared as long as nobody writes
    parts = {name: torch.from_numpy(np.load(place / f"{name}.npy", mmap_mode="c")) for name in PARTS}
    episodes = torch.arange(len(parts["groups"]))
    return FrameBank(**parts, episodes=episodes, cameras=tuple(facts["cameras"]), dt_s=facts["dt_s"])
