"""Banks from before caches existed, stored beside npz logs; valid as long as the log does not change."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jepa_mpc.plain_json import read_json_file
from jepa_mpc.trajectories.actions import ACTION_PARTS, ActionPart
from jepa_mpc.trajectories.cache import CacheOptions
from jepa_mpc.trajectories.episode import IMAGES
from jepa_mpc.trajectories.formats.npz import FILE_NAME, read_episode
from jepa_mpc.trajectories.guards import plain_file
from jepa_mpc.trajectories.resizing import PictureFit
from jepa_mpc.trajectories.robots import ROBOTS

VERSION = 1
PARTS = ("frames", "actions", "proprio", "offsets", "groups")


def earlier_bank(log: Path, options: CacheOptions, part: ActionPart) -> dict[str, Any] | None:
    """The memory-mapped arrays and metadata of such a bank, or None if there is no matching one.

    Args:
        log: The log.
        options: The requested options; only cameras could be chosen then.
        part: The action part; only those without arguments existed then.
    """
    asked = CacheOptions(cameras=options.cameras)
    known = ACTION_PARTS.get(part.name)
    if options != asked or known is None or part != known() or not (log / ".bank").is_dir():
        return None
    paths = sorted(path for path in log.glob("*.npz") if FILE_NAME.fullmatch(path.name))
    cameras = options.cameras or (read_episode(paths[0]).cameras if paths else ())
    stats = [(path.name, (stat := path.stat()).st_size, stat.st_mtime_ns) for path in paths]
    text = json.dumps([VERSION, stats, [IMAGES + camera for camera in cameras], part.name])
    place = log / ".bank" / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not (place / "bank.json").exists():
        return None
    try:
        facts = read_json_file(plain_file(place / "bank.json", log))
        cameras, dt_s = tuple(facts["cameras"]), float(facts["dt_s"])
        # copy-on-write: writable for torch's sake, yet the pages stay shared as long as nobody writes
        held = {name: np.load(plain_file(place / f"{name}.npy", log), mmap_mode="c") for name in PARTS}
        arrays = {name: torch.from_numpy(array) for name, array in held.items()}
    except (OSError, LookupError, TypeError, ValueError):  # damaged: what is in the log counts
        return None
    origin = {
        "robot": ROBOTS["house"].to_dict(), "picture": PictureFit().to_dict(),
        "source": {"path": str(log), "format": "npz"},
    }  # fmt: skip
    return {
        **arrays, "episodes": torch.arange(len(arrays["groups"])), "cameras": cameras,
        "dt_s": dt_s, "joined": part.joined, "origin": origin,
    }  # fmt: skip
