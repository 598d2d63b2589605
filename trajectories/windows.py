"""Windows of consecutive steps from the episodes of a store; no window crosses an episode."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Literal

import numpy as np
import torch

from jepa_mpc.interfaces import EpisodeStore, Window
from jepa_mpc.trajectories.actions import ActionPart, PoseDelta
from jepa_mpc.trajectories.episode import IMAGES, STATE

Blocks = Literal["joined", "stacked"]


class Windows:
    """Every window of `history + horizon` observations, for use with a DataLoader.

    Frames of several cameras are stacked along C, three channels each. T observations come with T - 1 actions.

    Args:
        store: The log.
        history: Past observations of a window.
        horizon: Observations that follow them.
        cameras: Which cameras, in stacking order; None for all of the store.
        actions: What counts as the action between two steps.
        episodes: Which episodes; None for all.
        skip: Log steps from one observation to the next.
        blocks: The action between two observations: one action `joined` from those of the log, or all of them `stacked`
            into
            a block of `skip * A` numbers.

    Raises:
        ValueError: If a size is not positive, a camera or kind of block is unknown or no episode is long enough.
    """

    def __init__(
        self,
        store: EpisodeStore,
        *,
        history: int = 1,
        horizon: int = 3,
        cameras: Sequence[str] | None = None,
        actions: ActionPart | None = None,
        episodes: Sequence[int] | None = None,
        skip: int = 1,
        blocks: Blocks = "joined",
    ) -> None:
        if history < 1 or horizon < 0:
            raise ValueError(f"need history >= 1 and horizon >= 0, got history={history}, horizon={horizon}")
        if skip < 1 or blocks not in ("joined", "stacked"):
            raise ValueError(f"need skip >= 1 and blocks 'joined' or 'stacked', got skip={skip}, blocks={blocks!r}")
        self.store, self.skip, self.blocks = store, skip, blocks
        self.length = (history + horizon - 1) * skip + 1
        self.images = image_fields(store.fields, cameras)
        self.actions = PoseDelta() if actions is None else actions
        self.episodes = list(range(len(store.lengths)) if episodes is None else episodes)
        for episode in self.episodes:
            if store.lengths[episode] < 1:
                store.read(episode, 0, 1, [])  # an episode without steps is damaged: reading raises the reason
        counts = [max(store.lengths[episode] - self.length + 1, 0) for episode in self.episodes]
        self.ends = list(accumulate(counts))
        if not self.ends or self.ends[-1] == 0:
            raise ValueError(f"no episode has the {self.length} steps of a window")

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> Window:
        """The window with that index: frames `T C h w` (uint8), actions `T-1 A`, proprio `T P`."""
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        at = bisect_right(self.ends, index)
        start = index - (self.ends[at - 1] if at else 0)
        names = [*self.images, STATE, *self.actions.needs]
        columns = self.store.read(self.episodes[at], start, start + self.length, names)
        return {
            "frames": torch.from_numpy(
                stack_cameras({name: columns[name][:: self.skip] for name in self.images}, self.images)
            ),
            "actions": torch.from_numpy(self._between(self.actions(columns))),
            "proprio": torch.from_numpy(columns[STATE][:: self.skip].astype(np.float32)),
        }

    def _between(self, actions: np.ndarray) -> np.ndarray:
        """The actions between two observations that are `skip` steps apart."""
        if self.skip == 1:
            return actions
        blocks = actions.reshape(-1, self.skip, actions.shape[1])
        if self.blocks == "stacked":
            return blocks.reshape(len(blocks), -1)
        joined = blocks.astype(np.float64).sum(1) if self.actions.joined == "sum" else blocks.astype(np.float64).mean(1)
        return joined.astype(np.float32)


def image_fields(fields: Mapping[str, object], cameras: Sequence[str] | None) -> list[str]:
    """Field names of the cameras, in order.

    Raises:
        ValueError: If one is not recorded; lists those that are.
    """
    known = [name.removeprefix(IMAGES) for name in fields if name.startswith(IMAGES)]
    wanted = known if cameras is None else list(cameras)
    for camera in wanted:
        if camera not in known:
            raise ValueError(f"the log has no camera {camera!r}; it has {', '.join(known)}")
    return [IMAGES + camera for camera in wanted]


def stack_cameras(columns: Mapping[str, np.ndarray], images: Sequence[str]) -> np.ndarray:
    """Frames `T C h w` from columns `T h w 3`, cameras stacked along C."""
    length, height, width, _ = columns[images[0]].shape
    frames = np.empty((length, 3 * len(images), height, width), dtype=columns[images[0]].dtype)
    for at, name in enumerate(images):
        frames[:, 3 * at : 3 * at + 3] = columns[name].transpose(0, 3, 1, 2)
    return frames
