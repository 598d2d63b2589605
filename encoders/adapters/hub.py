"""Locations of released weights: a local file or folder, or a Hugging Face repository that is cached."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from jepa_mpc.errors import BadCheckpoint, MissingPackage

logger = logging.getLogger(__name__)

WANTED = ("config.json", "model*.safetensors", "model.safetensors.index.json", "weights.pt")
"""Files of a repository that hold weights; the rest is not fetched."""


def resolve(hub: str | Path, *, wanted_by: str = "loading released weights") -> Path:
    """The local path of released weights.

    Args:
        hub: A file or folder, or the name `owner/repository` of Hugging Face. Local paths take precedence.
        wanted_by: The caller, for the error message.

    Returns:
        A file or folder.

    Raises:
        BadCheckpoint: If there is no such file, or the repository cannot be fetched; says what to do.
        MissingPackage: If a repository is named and huggingface_hub is not installed.
    """
    path = Path(hub).expanduser()
    if path.exists():
        return path
    name = str(hub)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or path.suffix in (".pt", ".pth", ".tar", ".safetensors"):
        raise BadCheckpoint(f"{wanted_by}: there is no file or folder {path}, and it is not a name owner/repository")
    return _fetch(name, wanted_by)


def _fetch(name: str, wanted_by: str) -> Path:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingPackage("huggingface_hub", wanted_by) from error
    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=list(WANTED)))
    except (OSError, ValueError) as error:  # no network, no such repository, no space
        reason = " ".join(str(error).split())[:160]
        raise BadCheckpoint(
            f"{wanted_by}: {name} is not a local folder and could not be fetched ({reason}). On a machine with a "
            f"network, run `hf download {name} --local-dir FOLDER`, then copy it here and give hub=FOLDER"
        ) from error
    logger.info("%s: weights of %s lie in %s", wanted_by, name, folder)
    return folder
