"""Atomic writing of files and folders.

Everything is written to a workspace beside its destination (`workspaces`), flushed to disk and moved into place in one
step. After a crash, a kill or a full disk the previous version remains. Links are followed: the link stays and its
target is replaced.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from jepa_mpc.errors import Busy
from jepa_mpc.exchange import exchange
from jepa_mpc.workspaces import free_workspace, lock, open_lock, workspace

Json = Mapping[str, "Json"] | Sequence["Json"] | str | int | float | bool | None


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path; publish it as `path` when the block succeeds.

    The temporary file lies in a folder beside `path` and has the same name (video writers need the suffix). Missing
    parent folders are created. If the block raises, the temporary file is removed and `path` is unchanged. Concurrent
    writers do not disturb each other; the last one wins.

    Args:
        path: Destination of the file.

    Raises:
        OSError: If the disk is full or the path cannot be written; names `path`.
    """
    with _naming(Path(path)) as path, free_workspace(path) as place:
        draft = place / path.name
        yield draft
        if path.exists():
            shutil.copymode(path, draft)
        _flush(draft)
        os.replace(draft, path)
        _flush(path.parent)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty temporary folder; publish it as `path` when the block succeeds.

    An existing folder at `path` is replaced as a whole: in one step where the file system supports it, otherwise in
    two, between which `published` finds the older one. A folder has one writer at a time.

    Args:
        path: Destination of the folder.

    Raises:
        Busy: If another writer holds the folder.
        OSError: If the disk is full, the path cannot be written, or is a file; names `path`.
    """
    with _naming(Path(path)) as path, workspace(path) as place:
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file stands there")
        draft = place / path.name
        draft.mkdir()
        yield draft
        publish_folder(draft, path)


@contextmanager
def only_writer(folder: str | os.PathLike[str], *, what: str = "training") -> Iterator[None]:
    """Lock a folder, creating it if needed; the system releases the lock even if the process is killed.

    Args:
        folder: The folder.
        what: What the holder does, for the error message of others.

    Raises:
        Busy: If another process holds it.
        OSError: If it cannot be made or locked.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with os.fdopen(open_lock(folder / ".lock"), "r+") as file:
        if not lock(file.fileno()):
            holder = file.read().strip()
            who = f" (process {holder})" if holder else ""
            raise Busy(f"another {what}{who} writes to {folder}: wait for it or choose another folder")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def publish_folder(draft: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Move a complete folder to `path`, replacing what is there.

    Args:
        draft: The folder, beside its destination.
        path: The destination.

    Raises:
        OSError: If the path cannot be written; `path` is then unchanged.
    """
    draft = Path(draft)
    for entry in (*draft.rglob("*"), draft):
        if not entry.is_symlink() and (entry.is_file() or entry.is_dir()):
            _flush(entry)
    _swap(draft, _through_links(Path(path)))


def published(folder: str | os.PathLike[str]) -> Path:
    """The folder itself, or the older one left beside it by a writer that was killed during the swap."""
    folder = Path(folder)
    previous = _previous(folder)
    return previous if not folder.exists() and previous.exists() else folder


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file atomically.

    Raises:
        OSError: If the disk is full or the path cannot be written; names `path`.
    """
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file atomically.

    Raises:
        OSError: If the disk is full or the path cannot be written; names `path`.
    """
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Json) -> None:
    """Write a JSON file atomically.

    Raises:
        TypeError: If `value` holds a value that JSON cannot represent.
        ValueError: If `value` holds NaN or an infinity.
        OSError: If the disk is full or the path cannot be written; names `path`.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def keep(entry: Path, folder: Path) -> None:
    """Copy a file or folder into another folder, as hard links where the file system supports them."""
    copy = folder / entry.name
    if entry.is_dir() and not entry.is_symlink():
        shutil.copytree(entry, copy, symlinks=True, copy_function=_link)
    else:
        _link(entry, copy)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _swap(new: Path, path: Path) -> None:
    """Move `new` to `path`; the old folder is deleted last."""
    previous = _previous(path)
    old = previous
    if not path.exists():
        os.rename(new, path)
    elif exchange(new, path):
        old = new
    else:
        _swap_in_two_steps(new, path, previous)
    _flush(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _swap_in_two_steps(new: Path, path: Path, previous: Path) -> None:
    shutil.rmtree(previous, ignore_errors=True)
    os.rename(path, previous)
    try:
        os.rename(new, path)
    except OSError:
        os.rename(previous, path)
        raise


def _flush(path: Path) -> None:
    """Flush a file or the entries of a folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _naming(path: Path) -> Iterator[Path]:
    """Yield the target of a link (with its parent folders created); OSErrors name the requested path."""
    try:
        path = _through_links(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path
    except OSError as error:
        if error.errno is None:  # raised by this project, with its own message
            raise
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"could not write ({reason}); nothing there was changed", str(path)) from error


def _through_links(path: Path) -> Path:
    if not path.is_symlink():
        return path
    end = Path(os.path.realpath(path))
    if end.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return end
