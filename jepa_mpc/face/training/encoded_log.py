"""Episodes of a log whose frames are encoded once: spread evenly over the log and cached in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from jepa_mpc.checkpoint import MANIFEST, load_checkpoint, save_checkpoint
from jepa_mpc.trajectories.bank import FrameBank

AT_ONCE = 64  # frames encoded per update of the progress bar


@dataclass(frozen=True, kw_only=True)
class ChosenEpisodes:
    """A selection of episodes of a replay buffer.

    Args:
        episodes: Their indices, int64 `E`.
        spans: First row and end row (exclusive) of each, int64 `E 2`.
    """

    episodes: Tensor
    spans: Tensor

    @property
    def rows(self) -> Tensor:
        """All of their rows, episode after episode."""
        return torch.cat([torch.arange(start, stop) for start, stop in self.spans.tolist()])

    @property
    def offsets(self) -> Tensor:
        """Start of each episode among `rows`, and the end of the last one: int64 `E + 1`."""
        return torch.cat([torch.zeros(1, dtype=torch.int64), self.spans.diff(dim=1)[:, 0].cumsum(0)])


def spread(bank: FrameBank, episodes: int) -> ChosenEpisodes:
    """This many episodes of a replay buffer, spread evenly; all if there are fewer."""
    places = torch.linspace(0, len(bank.episodes) - 1, min(episodes, len(bank.episodes))).round().long()
    chosen = bank.episodes[places]
    return ChosenEpisodes(episodes=chosen, spans=torch.stack([bank.offsets[chosen], bank.offsets[chosen + 1]], dim=1))


def encoded_once(
    name: str, rows: Tensor, encode: Callable[[Tensor], Tensor], *, keep: Path, facts: Mapping[str, Any]
) -> Tensor:
    """The encoding of log rows: read from the cache if its facts match, otherwise computed and cached.

    Args:
        name: Name of the result in its folder.
        rows: Rows of the log.
        encode: Maps some rows to their latents.
        keep: The cache folder.
        facts: What identifies this result; plain JSON values.
    """
    if (keep / MANIFEST).exists():
        tensors, config = load_checkpoint(keep)
        if config == dict(facts):
            return tensors[name]
    latents = torch.cat([encode(some) for some in tqdm(rows.split(AT_ONCE), desc="encoding", unit="batch")])
    save_checkpoint(keep, {name: latents}, dict(facts))
    return latents
