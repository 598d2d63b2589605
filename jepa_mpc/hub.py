"""Checkpoints on the Hugging Face Hub, named `hf://owner/name` or `hf://owner/name@revision`."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

from jepa_mpc.errors import BadCheckpoint, MissingPackage

logger = logging.getLogger(__name__)

FILES = ("*.json", "*.safetensors", "*.jpg", "*.png", "*.md")
"""Files of a checkpoint; the rest of a repository is not fetched."""

_FORM = re.compile(r"hf:/{1,2}(?P<name>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+))?/?")


def hub_name(place: str | Path) -> str | None:
    """`owner/name` or `owner/name@revision` if a path names the Hub (pathlib may have dropped one of the two slashes).

    Raises:
        BadCheckpoint: If it starts with hf: but names no repository.
    """
    text = str(place)
    if not text.startswith("hf:"):
        return None
    found = _FORM.fullmatch(text)
    if found is None:
        raise BadCheckpoint(f"{text} is not a Hub repository: write hf://owner/name or hf://owner/name@revision")
    revision = found["revision"]
    return found["name"] if revision is None else f"{found['name']}@{revision}"


def fetch(name: str) -> Path:
    """The local folder of a repository; cached files need no network.

    Args:
        name: `owner/name` or `owner/name@revision`.

    Raises:
        BadCheckpoint: If it cannot be fetched; says what to do.
        MissingPackage: If huggingface_hub is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingPackage("huggingface_hub", f"hf://{name}") from error
    repository, _, revision = name.partition("@")
    try:
        place = huggingface_hub.snapshot_download(repository, revision=revision or None, allow_patterns=list(FILES))
    except _failures() as error:  # no network, no such repository, no space
        raise BadCheckpoint(
            f"hf://{name} could not be fetched ({_sentence(error)}). On a machine with a network, run `hf download "
            f"{repository} --local-dir FOLDER`, then copy it here and give the folder"
        ) from error
    logger.info("hf://%s lies in %s", name, place)
    return Path(place)


def push(folder: str | Path, name: str, *, message: str) -> str:
    """Upload a folder in one commit; the repository is created if needed.

    Args:
        folder: Uploaded completely.
        name: `owner/name`, or `owner/name@branch`.
        message: Commit message.

    Returns:
        Its URL.

    Raises:
        MissingPackage: If huggingface_hub is not installed.
        OSError: If there is no network or no permission; says what to do.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingPackage("huggingface_hub", f"hf://{name}") from error
    repository, _, revision = name.partition("@")
    hub = huggingface_hub.HfApi()
    try:
        hub.create_repo(repository, exist_ok=True)
        done = hub.upload_folder(
            repo_id=repository, folder_path=str(folder), commit_message=message, revision=revision or None
        )
    except _failures() as error:
        raise OSError(
            f"hf://{name} could not be written ({_sentence(error)}); {folder} is unchanged. Check the network and "
            "`hf auth login`, then try again"
        ) from error
    return str(done)


def _failures() -> tuple[type[Exception], ...]:
    """Whatever huggingface_hub raises: its HTTP client is one of several packages, by version."""
    modules = [sys.modules[name] for name in ("httpx", "httpx2", "requests") if name in sys.modules]
    kinds = [getattr(module, kind, None) for module in modules for kind in ("HTTPError", "RequestException")]
    return (OSError, ValueError, *(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)))


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
