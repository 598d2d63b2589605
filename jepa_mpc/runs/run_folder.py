"""The run folder: foreign files are never overwritten, and the same command resumes where it stopped."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from jepa_mpc.files import write_json
from jepa_mpc.plain_json import read_json_file

RUN = "run.json"


def claim_folder(folder: Path) -> None:
    """Create the run folder and check that it is writable.

    Raises:
        OSError: If it is not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write to out={folder}: {error.strerror}") from error


def claim_run(
    folder: Path, command: str, settings: Mapping[str, Any] | None = None, *, left: Collection[str] = ()
) -> None:
    """Create a command's run folder with its settings, or accept the one that this command left.

    Args:
        folder: The folder.
        command: Name of the command.
        settings: Everything that determines its files, plain JSON values; None if the command itself compares the
            settings.
        left: Files that identify an older run of this command without a note.

    Raises:
        ValueError: If the folder holds something else, or a run of another command or with other settings.
        OSError: If it cannot be written.
    """
    refuse_strangers(folder, f"a run of {command}", lambda name: name == RUN or name in left)
    wanted = json.loads(json.dumps({"command": command, "settings": settings or {}}))
    if (folder / RUN).exists():
        found = _noted(folder / RUN)
        if found["command"] != command:
            raise ValueError(f"out={folder} holds a run of {found['command']}: choose a new folder")
        other = differing(found["settings"], wanted["settings"])
        if other:
            raise ValueError(f"out={folder} holds a run with other settings of {', '.join(other)}: choose a new folder")
    claim_folder(folder)
    write_json(folder / RUN, wanted)


def refuse_strangers(folder: Path, what: str, ours: Callable[[str], bool]) -> None:
    """Refuse a folder that holds files but none that marks it as ours; hidden files (locks, drafts) are ignored.

    Args:
        folder: The folder; it need not exist.
        what: What the folder should hold, for the message.
        ours: Whether a file of that name marks the folder.

    Raises:
        ValueError: If there are only foreign files; names some of them.
    """
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []
    if names and not any(map(ours, names)):
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise ValueError(f"out={folder} holds files other than {what} ({listed}): choose a new folder")


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the settings that differ."""
    return [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]


def _noted(path: Path) -> dict[str, Any]:
    try:
        found = read_json_file(path)
    except ValueError as error:
        raise ValueError(f"{error}: choose a new folder") from error
    match found:
        case {"settings": dict(), "command": str()}:
            return dict(found)
    raise ValueError(f"{path} is not the note of a run: choose a new folder")
