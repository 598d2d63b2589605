"""Where configurations and shipped checkpoints lie: at the root of a checkout, or inside of an installed package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
ROOT = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent
CONFIGS = ROOT / "configs"
FILES = ("manifest.json", "config.json", "model.safetensors")
"""Of a checkpoint."""

CHECKPOINTS = ROOT / "experiments" / "checkpoints"


def folder_of(checkpoint: str | Path) -> Path:
    """The folder itself, or that of the shipped checkpoint of this name where no checkpoint stands at the place.

    A shipped checkpoint is known by its name (`reach_wide`) in every directory, also beside a folder `reach_wide` that
    holds other things.
    """
    folder, known = Path(checkpoint), shipped(str(checkpoint))
    return folder if known is None or any((folder / name).exists() for name in FILES) else known


def shipped(name: str) -> Path | None:
    """The folder of a checkpoint that is shipped under a name such as `reach_wide`; None if there is none."""
    folder = CHECKPOINTS / name
    return folder if "/" not in name and (folder / FILES[0]).is_file() else None
