"""Log formats: one file each, all behind the EpisodeStore protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.interfaces import EpisodeStore
from trajectories.formats.npz import NpzStore

FORMATS: dict[str, Callable[[Path], EpisodeStore]] = {"npz": NpzStore}
