"""Locations of configurations and shipped checkpoints: the root of a checkout, or inside an installed package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
ROOT = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent
CONFIGS = ROOT / "configs"
FILES = ("manifest.json", "config.json", "model.safetensors")
"""Of a checkpoint."""

CHECKPOINTS = ROOT / "experiments" / "checkpoints"


def folder_of(checkpoint: str | Path) -> Path:
    """The folder itself, or that of the shipped checkpoint of this name if the path holds no checkpoint.

    The name of a shipped checkpoint (`reach_wide`) works in every directory, even beside a folder `reach_wide` that
    holds other things.
    """
    folder, known = Path(checkpoint), shipped(str(checkpoint))
    return folder if known is None or any((folder / name).exists() for name in FILES) else known


def shipped(name: str) -> Path | None:
    """The folder of a shipped checkpoint such as `reach_wide`; None if there is none."""
    folder = CHECKPOINTS / name
    return folder if "/" not in name and (folder / FILES[0]).is_file() else None
