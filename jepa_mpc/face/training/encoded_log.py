"""Episodes of a log whose frames are encoded once: spread evenly over the log, and kept in a folder."""

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

AT_ONCE = 64  # frames that are encoded between two ticks of the progress bar


@dataclass(frozen=True, kw_only=True)
class ChosenEpisodes:
    """Some episodes of a bank, as rows of it.

    Args:
        episodes: Their numbers, int64 `E`.
        spans: First row and the row behind the last one of each, int64 `E 2`.
    """

    episodes: Tensor
    spans: Tensor

    @property
    def rows(self) -> Tensor:
        """All of their rows, one episode after the other."""
        return torch.cat([torch.arange(start, stop) for start, stop in self.spans.tolist()])

    @property
    def offsets(self) -> Tensor:
        """Where each begins among `rows`, and where the last one ends: int64 `E + 1`."""
        return torch.cat([torch.zeros(1, dtype=torch.int64), self.spans.diff(dim=1)[:, 0].cumsum(0)])


def spread(bank: FrameBank, episodes: int) -> ChosenEpisodes:
    """So many episodes of a bank, spread evenly; all if there are fewer."""
    places = torch.linspace(0, len(bank.episodes) - 1, min(episodes, len(bank.episodes))).round().long()
    chosen = bank.episodes[places]
    return ChosenEpisodes(episodes=chosen, spans=torch.stack([bank.offsets[chosen], bank.offsets[chosen + 1]], dim=1))


def encoded_once(
    name: str, rows: Tensor, encode: Callable[[Tensor], Tensor], *, keep: Path, facts: Mapping[str, Any]
) -> Tensor:
    """What an encoder makes of rows of a log: read if it is kept with the same facts, else made and kept.

    Args:
        name: What the result is called in its folder.
        rows: Rows of the log.
        encode: Some of the rows to their latents.
        keep: The folder.
        facts: What tells this result from others; plain JSON values.
    """
    if (keep / MANIFEST).exists():
        tensors, config = load_checkpoint(keep)
        if config == dict(facts):
            return tensors[name]
    latents = torch.cat([encode(some) for some in tqdm(rows.split(AT_ONCE), desc="encoding", unit="batch")])
    save_checkpoint(keep, {name: latents}, dict(facts))
    return latents
