"""Where configurations and shipped checkpoints lie: at the root of a checkout, or inside of an installed package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
ROOT = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent
CONFIGS = ROOT / "configs"
CHECKPOINTS = ROOT / "experiments" / "checkpoints"


def shipped(name: str) -> Path | None:
    """The folder of a checkpoint that is shipped under a name such as `reach_wide`; None if there is none."""
    folder = CHECKPOINTS / name
    return folder if "/" not in name and (folder / "manifest.json").is_file() else None
