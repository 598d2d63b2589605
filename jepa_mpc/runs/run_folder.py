"""The folder of a run: nothing of others is written over, and the same command goes on where it stopped."""

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
    """Make the run folder and see that files can be written there.

    Raises:
        OSError: If they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"out={folder} cannot be written to: {error.strerror}") from error


def claim_run(
    folder: Path, command: str, settings: Mapping[str, Any] | None = None, *, left: Collection[str] = ()
) -> None:
    """Make the run folder of a command with its settings, or find it as this command has left it.

    Args:
        folder: The folder.
        command: Name of the command.
        settings: All that decides what the files in it say, plain JSON values; None where the command itself compares
            what it finds with what it was asked for.
        left: Files that mark a run of this command which has no note yet.

    Raises:
        ValueError: If the folder holds something else, or a run of another command or with other settings.
        OSError: If it cannot be written to.
    """
    refuse_strangers(folder, f"a run of {command}", lambda name: name == RUN or name in left)
    wanted = json.loads(json.dumps({"command": command, "settings": settings or {}}))
    if (folder / RUN).exists():
        found = _noted(folder / RUN)
        if found["command"] != command:
            raise ValueError(f"out={folder} holds a run of {found['command']}: name a new folder")
        other = differing(found["settings"], wanted["settings"])
        if other:
            raise ValueError(f"out={folder} holds a run with other settings of {', '.join(other)}: name a new folder")
    claim_folder(folder)
    write_json(folder / RUN, wanted)


def refuse_strangers(folder: Path, what: str, ours: Callable[[str], bool]) -> None:
    """Refuse a folder that has files, and none that marks it as ours; hidden ones (locks, drafts) do not count.

    Args:
        folder: The folder; it need not exist.
        what: What was to be found there.
        ours: Whether a file of that name marks the folder.

    Raises:
        ValueError: If there are only others; names some of them.
    """
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []
    if names and not any(map(ours, names)):
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise ValueError(f"out={folder} holds other files than {what} ({listed}): name a new folder")


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the settings that differ."""
    return [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]


def _noted(path: Path) -> dict[str, Any]:
    try:
        found = read_json_file(path)
    except ValueError as error:
        raise ValueError(f"{error}: name a new folder") from error
    match found:
        case {"settings": dict(), "command": str()}:
            return dict(found)
    raise ValueError(f"{path} is not the note of a run: name a new folder")
