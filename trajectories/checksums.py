"""SHA-256 checksums beside a log of any format; they catch bit rot that no decoder notices.

A folder carries `checksums.json`; a log that is one file carries `<file>.checksums.json` beside it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jepa_mpc.errors import BadEpisode
from jepa_mpc.files import Json, write_json
from jepa_mpc.plain_json import parse_json
from jepa_mpc.trajectories.guards import fault, plain_file, read_plain

NAME = "checksums.json"
CHUNK = 1 << 20


def checksums_path(log: Path) -> Path:
    """Path of the checksum file of a log."""
    return log / NAME if log.is_dir() else log.with_name(f"{log.name}.{NAME}")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def write_checksums(log: Path, *, place: Path | None = None) -> Path:
    """Record size and SHA-256 of every file of a log.

    Args:
        log: A folder or a single file.
        place: File to write; by default where `Checksums` looks for it.

    Raises:
        OSError: If the file cannot be written.
    """
    place = checksums_path(log) if place is None else place
    root = log if log.is_dir() else log.parent
    files = _files(log) if log.is_dir() else [log]
    entries: dict[str, Json] = {
        path.relative_to(root).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in files
    }
    write_json(place, {"files": entries})
    return place


class Checksums:
    """The recorded checksums of a log; each file is compared when it is first used.

    Args:
        log: The folder or file; without recorded checksums nothing is compared.

    Raises:
        BadEpisode: If the checksum file itself is unreadable.
    """

    def __init__(self, log: Path) -> None:
        self.root = log if log.is_dir() else log.parent
        self.note = NAME
        self.noted = _noted(checksums_path(log))
        self._seen: dict[str, tuple[int, int]] = {}

    def check(self, path: Path) -> None:
        """Compare one file with its checksum; an unchanged file is compared once.

        Raises:
            BadEpisode: If it is missing, truncated or altered.
        """
        name = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else ""
        entry = self.noted.get(name)
        if entry is None:
            return
        try:
            facts = path.stat()
        except OSError as error:
            raise BadEpisode(
                f"{name}: field 'file' is missing although {self.note} lists it: restore the file"
            ) from error
        state = (facts.st_size, facts.st_mtime_ns)
        if self._seen.get(name) == state:
            return
        if facts.st_size != entry.get("bytes", facts.st_size) or file_sha256(path) != entry["sha256"]:
            problem = f"is damaged: size or SHA-256 differ from {self.note}"
            remedy = f"restore the file, or delete {self.note} if the change was meant"
            raise fault(name, field="file", problem=problem, remedy=remedy)
        self._seen[name] = state

    def check_all(self, names: Iterable[str] | None = None) -> None:
        """Compare all listed files, or only those named.

        Raises:
            BadEpisode: At the first that differs, or that is no plain file of the log.
        """
        for name in self.noted if names is None else names:
            if ".." in Path(name).parts or os.path.lexists(self.root / name):
                plain_file(self.root / name, self.root)
            self.check(self.root / name)


def _files(folder: Path) -> list[Path]:
    """All files of a folder except hidden ones and the checksum file."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.name != NAME
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _noted(path: Path) -> dict[str, Mapping[str, Any]]:
    if not os.path.lexists(path):
        return {}
    try:
        entries = parse_json(read_plain(path, path.parent))["files"]
        noted = {str(name): {"bytes": int(one["bytes"]), "sha256": str(one["sha256"])} for name, one in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise BadEpisode(f"{path.name}: field 'files' is unreadable ({error}); rewrite the checksums") from error
    return dict(noted)
