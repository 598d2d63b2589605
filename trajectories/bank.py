"""Opens a log as a `FrameBank`, from which training windows are sampled.

Images and rows are stored in a cache (`trajectories.cache`) and memory-mapped, so that processes that train on the same
log share one copy in the page cache. Actions are computed when the bank is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from jepa_mpc.trajectories.actions import ActionPart, PoseDelta
from jepa_mpc.trajectories.cache import Cache, CacheOptions, is_cache
from jepa_mpc.trajectories.earlier import earlier_bank
from jepa_mpc.trajectories.episode import (
    ACTION,
    EE_POSE,
    EXTRAS,
    GRIPPER,
    GRIPPER_COMMAND,
    HELD_FELT,
    OBJECT_FELT,
    STATE,
)
from jepa_mpc.trajectories.framebank import FrameBank as FrameBank
from jepa_mpc.trajectories.hindsight import in_hand, object_from_hand
from jepa_mpc.trajectories.ingest import cached_elsewhere, ingest

Progress = Callable[[Iterable[int]], Iterable[int]]


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
    """Open the bank of a log of any format, or of a cache. The cache is built first if it is missing or out of date.

    Args:
        folder: A log, or a finished cache.
        cameras: Which cameras, in stacking order; None for all.
        actions: What counts as the action between two steps; the measured motion by default.
        options: Further cache options: image size, robot map, format.
        place: Folder of the cache; beside the log by default.
        workers: Number of processes that build the cache.
        progress: Wraps the loop over episodes (a progress bar).

    Raises:
        BadEpisode: If an episode is damaged.
        ValueError: If the log lacks what the options ask for.
        OSError: If the disk is full; no partial cache remains.
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
    """The bank over a cache, without copying images.

    Raises:
        ValueError: If the cameras are not adjacent in the cache in this order, or the log lacks a column that the
            actions
            need.
    """
    missing = [name for name in part.needs if name not in cache.columns]
    if missing:
        known = ", ".join(cache.columns)
        raise ValueError(
            f"actions {part.name!r} are made of {', '.join(missing)}, which this log does not have; it has {known}: "
            "give a robot map (robot=...), or other actions (actions=none to learn from images alone)"
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
        proprio=_proprio(cache),
        offsets=torch.from_numpy(offsets),
        groups=torch.tensor(cache.groups, dtype=torch.int64),
        episodes=torch.arange(len(lengths)),
        cameras=chosen,
        dt_s=cache.dt_s,
        joined=part.joined,
        origin={
            "robot": cache.robot.to_dict(),
            "picture": cache.fit.to_dict(),
            "source": cache.index["source"],
            "embodiment": str(cache.metadata(0).get("robot", "")),
        },
        extras={name: torch.from_numpy(cache.rows(name)) for name in EXTRAS if name in cache.columns} | _felt(cache),
    )


def _felt(cache: Cache) -> dict[str, torch.Tensor]:
    """Object position relative to the hand `G 3` (m) and whether it is held `G 1`, from proprioception; else {}."""
    if not {GRIPPER_COMMAND, GRIPPER, EE_POSE, ACTION} <= cache.columns.keys():
        return {}
    told, opening = cache.rows(GRIPPER_COMMAND)[:, 0], cache.rows(GRIPPER)[:, 0]
    hand, steps = cache.rows(EE_POSE)[:, :3], cache.rows(ACTION)[:, :3]
    spans = [slice(start, start + length) for start, length in zip(cache.offsets, cache.lengths, strict=False)]
    held = [in_hand(told[span], opening[span], hand[span], steps[span]) for span in spans]
    felt = [object_from_hand(known, hand[span]) for known, span in zip(held, spans, strict=True)]
    return {
        OBJECT_FELT: torch.from_numpy(np.concatenate(felt).astype(np.float32)),
        HELD_FELT: torch.from_numpy(np.concatenate(held).astype(np.float32))[:, None],
    }


def _proprio(cache: Cache) -> torch.Tensor:
    """Proprioception `G P`; P = 0 for a log of images alone."""
    return torch.from_numpy(cache.rows(STATE)) if STATE in cache.columns else torch.zeros(int(cache.offsets[-1]), 0)


def _channels(held: tuple[str, ...], wanted: tuple[str, ...]) -> slice:
    """The channels of adjacent cameras."""
    for at in range(len(held) - len(wanted) + 1):
        if wanted and held[at : at + len(wanted)] == wanted:
            return slice(3 * at, 3 * (at + len(wanted)))
    raise ValueError(f"the cache has the cameras {', '.join(held)}; {', '.join(wanted)} must be ingested by themselves")
